"""What NVML reads, on machines that have none of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tickrt.observe import nvml
from tickrt.observe.nvml import HARMLESS, REASONS, GpuReading, read_gpus, reasons


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    expected = "nvidia-ml-py is not installed: pip install 'tickrt[gpu]'"
    assert read_gpus() == GpuReading((), expected)


def test_without_a_driver_the_library_says_so() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: tickrt[gpu]")
    reading = read_gpus()
    if reading.gpus:
        pytest.skip("this machine has a GPU: tests/gpu reads it")
    assert reading.problem is not None
    assert reading.problem.startswith(("NVML: ", "the driver shows no GPU"))
    assert read_gpus() == reading  # again, as the first time


READ = """
import ctypes, json
from dataclasses import asdict
from tickrt.observe.nvml import read_gpus
readings = [asdict(read_gpus()) for _ in range(2)]
print(json.dumps([readings, ctypes.CDLL("libnvidia-ml.so.1").stub_open()]))
"""


def test_what_a_driver_says(tmp_path: Path) -> None:
    """A library with the driver's interface stands in for the driver, which is not here."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: tickrt[gpu]")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library, source = tmp_path / "libnvidia-ml.so.1", Path(__file__).with_name("nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (first, second), left_open = json.loads(done.stdout)
    assert first == second
    assert first["problem"] is None
    (gpu,) = first["gpus"]
    missing = gpu.pop("missing")
    assert missing == {"ecc": "Not Supported", "pcie_max_width": "Function Not Found"}
    assert gpu == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "bus": "00000000:3B:00.0",
        "driver": "580.95.05",
        "utilisation_percent": 97,
        "memory_used_mib": 3 * 1024,
        "memory_total_mib": 80 * 1024,
        "sm_mhz": 1755,
        "sm_max_mhz": 1980,
        "memory_mhz": 2619,
        "memory_max_mhz": 2619,
        "power_w": 151.5,
        "power_limit_w": 600.0,
        "power_default_w": 700.0,
        "temperature_c": 54,
        "throttled": ["power cap", "temperature (software)"],
        "persistent": True,
        "compute_mode": "exclusive process",
        "mig": False,
        "ecc": None,
        "pcie_gen": 5,
        "pcie_max_gen": 5,
        "pcie_width": 16,
        "pcie_max_width": None,
    }
    assert left_open == 0


def test_what_is_asked_is_there_to_be_asked() -> None:
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: tickrt[gpu]")
    source = Path(nvml.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r"\bnvml\.((?:nvml|NVML)\w+)", source))
    assert len(names) > 20
    assert not {name for name in names if not hasattr(library, name)}


def test_reasons_have_the_bits_of_the_header() -> None:
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: tickrt[gpu]")
    for bit, name in (
        ("GpuIdle", "idle"),
        ("ApplicationsClocksSetting", "application clocks"),
        ("SwPowerCap", "power cap"),
        ("HwSlowdown", "hardware slowdown"),
        ("SyncBoost", "sync boost"),
        ("SwThermalSlowdown", "temperature (software)"),
        ("HwThermalSlowdown", "temperature (hardware)"),
        ("HwPowerBrakeSlowdown", "power brake"),
        ("DisplayClockSetting", "display clocks"),
    ):
        assert REASONS[getattr(library, f"nvmlClocksThrottleReason{bit}")] == name


def test_every_bit_has_a_name() -> None:
    assert reasons(0) == ()
    assert reasons(0x45) == ("idle", "power cap", "temperature (hardware)")
    assert reasons(0x1001) == ("idle", "0x1000")
    assert set(REASONS.values()) >= HARMLESS


def test_it_costs_nothing_to_import() -> None:
    code = (
        "import sys, tickrt.observe.nvml, tickrt.observe.doctor.examine\n"
        "print({'pynvml', 'numba', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
