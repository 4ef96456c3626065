"""What a report says of the GPU: from a library that stands in for NVML, and from readings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers.reports import make_report
from helpers.sessions import config, market_file
from tickrt import backends
from tickrt.observe.nvml import GpuReading, GpuState
from tickrt.report.html import render_html
from tickrt.report.report import load_report, write_report
from tickrt.report.table import print_report
from tickrt.runtime.gpu_watch import GpuWatch
from tickrt.runtime.report_types import GpuFigure, GpuUse
from tickrt.runtime.session import Session

NVML = Path(__file__).parents[1] / "observe" / "nvml.c"
STATE = GpuState(
    index=0,
    name="NVIDIA H100",
    bus="00000000:3B:00.0",
    driver="580.95.05",
    utilisation_percent=90,
    memory_used_mib=3000,
    memory_total_mib=81920,
    sm_mhz=1755,
    memory_mhz=2619,
    power_w=150.5,
    throttled=("idle",),
    missing={"temperature_c": "Not Supported"},
)


def watched(*readings: GpuReading) -> GpuUse:
    """What a watch makes of these readings, one after the other; the last comes at the end."""
    left = list(readings)
    watch = GpuWatch(read=lambda: left.pop(0) if len(left) > 1 else left[0], every_s=1e-3)
    watch.start()
    end = time.monotonic() + 20.0
    while len(left) > 1 and time.monotonic() < end:
        time.sleep(1e-3)
    watch.finish()
    return watch.use()


def test_samples_become_min_median_and_max() -> None:
    busy = replace(STATE, power_w=400.0, sm_mhz=1980, throttled=("power cap",))
    use = watched(*(GpuReading((state,)) for state in (STATE, busy, busy)))
    assert use.problem is None
    assert use.samples >= 3
    (gpu,) = use.gpus
    figures = {figure.name: figure for figure in gpu.figures}
    assert figures["power"] == GpuFigure(name="power", unit="W", min=150.5, median=400.0, max=400.0)
    assert (figures["clock"].min, figures["clock"].max) == (1755, 1980)
    assert figures["memory in use"].unit == "MiB"
    assert gpu.memory_mib == 81920
    assert gpu.missing == {"temperature": "Not Supported"}
    assert list(gpu.throttled) == ["power cap"]  # an idle clock is no trouble
    assert 0.5 < gpu.throttled["power cap"] < 1.0


def test_what_cannot_be_read_is_said() -> None:
    use = watched(GpuReading(problem="NVML: Driver Not Loaded"))
    assert use == GpuUse(samples=0, gpus=[], problem="NVML: Driver Not Loaded")
    gone = watched(GpuReading((STATE,)), GpuReading(problem="NVML: GPU is lost"))
    assert (gone.samples, gone.problem) == (1, "NVML: GPU is lost")
    assert len(gone.gpus) == 1


def shown(use: GpuUse | None) -> tuple[str, str]:
    """The terminal's text, and the page."""
    report = make_report(gpu=use)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_report(report, console)
    console.file.close()
    return console.export_text(), render_html(report)


def test_the_report_shows_it_with_units(tmp_path: Path) -> None:
    capped = replace(STATE, throttled=("power cap",))
    use = watched(GpuReading((capped,)), GpuReading((capped,)))
    for text in shown(use):
        for part in ("utilisation", "90 %", "3,000 MiB", "1,755 MHz", "150.5 W", "580.95.05"):
            assert part in text
        assert "held back by power cap in 100" in text
        assert "temperature: not given: Not Supported" in text
    report = make_report(gpu=use)
    path, _ = write_report(report, tmp_path)
    assert load_report(path).gpu == use


def test_a_run_without_a_gpu_has_no_such_part() -> None:
    for text in shown(None):
        assert "GPU" not in text
    for text in shown(GpuUse(samples=0, gpus=[], problem="NVML: Driver Not Loaded")):
        assert "The GPU could not be read: NVML: Driver Not Loaded" in text


class OnGpu:
    """A backend that says it runs on a GPU; its engine is `null`."""

    ON_GPU = True
    probe = staticmethod(lambda targets=(): backends.probe("null"))
    load = staticmethod(lambda source, ring, settings: backends.load("null", *3 * (None,)))


RUN = """
import json, sys
from pathlib import Path
from helpers.sessions import config
from tickrt import backends
from tickrt.report.report import to_json
from tickrt.runtime.session import Session
sys.path.insert(0, sys.argv[2])
from test_gpu_watch import OnGpu
backends.register("on_gpu", OnGpu)
folder = Path(sys.argv[1])
with Session(config(folder, folder / "m.npz", backend="on_gpu", pin_cpu=None)) as session:
    print(json.dumps(to_json(session.run())["gpu"]))
"""


def test_a_session_on_a_gpu_watches_it(tmp_path: Path) -> None:
    """With the driver's library replaced by one that always says the same."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: tickrt[gpu]")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, NVML], check=True)
    market_file(tmp_path / "m.npz", 50)
    config(tmp_path, tmp_path / "m.npz")  # writes model and spec
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", RUN, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["samples"] >= 2
    (gpu,) = found["gpus"]
    assert gpu["name"] == "NVIDIA H100 80GB HBM3"
    power = next(figure for figure in gpu["figures"] if figure["name"] == "power")
    assert power == {"name": "power", "unit": "W", "min": 151.5, "median": 151.5, "max": 151.5}
    assert gpu["throttled"] == {"power cap": 1.0, "temperature (software)": 1.0}


def test_a_session_elsewhere_does_not(tmp_path: Path) -> None:
    assert backends.on_gpu("resident")
    assert not backends.on_gpu("native")
    with Session(config(tmp_path, market_file(tmp_path / "m.npz", 20))) as session:
        assert session.run().gpu is None
