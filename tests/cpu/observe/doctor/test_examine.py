"""Whole machines: which finding each question gives, and that none is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.machines import machine
from tickrt.observe.doctor.examine import Examination, examine
from tickrt.observe.doctor.finding import Finding
from tickrt.observe.doctor.tree import Tree
from tickrt.observe.nvml import GpuReading, GpuState, read_gpus

NO_NVML = GpuReading(problem="nvidia-ml-py is not installed")
H100 = GpuState(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    bus="00000000:3B:00.0",
    driver="580.95.05",
    sm_mhz=1980,
    sm_max_mhz=1980,
    power_w=120.0,
    power_limit_w=700.0,
    power_default_w=700.0,
    throttled=("idle",),
    persistent=True,
    compute_mode="default",
    mig=False,
    ecc=True,
)


def nothing(name: str) -> str | None:
    return None


def looked(tree: Tree, gpus: GpuReading = NO_NVML, pin: int | None = None) -> Examination:
    return examine(tree, gpus, pin=pin, version_of=nothing)


def verdicts(found: Examination, verdict: str) -> set[str]:
    return {f.what for f in found.findings if f.verdict == verdict}


def finding(found: Examination, what: str) -> Finding:
    (one,) = [f for f in found.findings if f.what == what]
    return one


def test_a_tuned_server_costs_nothing(tmp_path: Path) -> None:
    found = examine(machine("tuned", tmp_path), GpuReading((H100,)), version_of=lambda name: "1.0")
    assert [f.what for f in found.findings if f.verdict != "ok"] == []
    assert (found.core, found.chosen) == (2, "the first isolated one")
    assert found.place == "bare metal"
    assert not any(f.fix for f in found.findings)
    groups = list(dict.fromkeys(f.group for f in found.findings))
    assert groups == ["core", "memory", "system", "GPU", "GPU 0000:3b:00.0", "GPU 0", "tools"]


def test_a_laptop_costs_latency_in_most_things(tmp_path: Path) -> None:
    found = looked(machine("laptop", tmp_path))
    assert found.place == "bare metal"
    assert verdicts(found, "not readable here") == {"NVML"}
    fine = {"NUMA", "processor ration", "hypervisor", "driver", "GDRCopy"}
    assert verdicts(found, "ok") == fine
    for one in found.findings:
        if one.verdict == "costs latency":
            assert one.read, one.what
            assert one.why, one.what
            assert one.fix, one.what
            assert "\n" not in one.fix


def test_a_guest_does_not_see_its_clock_and_has_a_hypervisor(tmp_path: Path) -> None:
    found = looked(machine("vm", tmp_path))
    assert found.place == "a virtual machine"
    assert verdicts(found, "not readable here") == {"governor", "clock rate", "turbo"}
    assert finding(found, "hypervisor").verdict == "costs latency"
    for what in ("governor", "clock rate", "turbo"):
        assert "(a virtual machine)" in finding(found, what).why
    assert finding(found, "NVIDIA GPU").verdict == "ok"
    assert "of its time stolen" in finding(found, "hypervisor").read


def test_a_container_says_of_each_thing_why_it_is_not_readable(tmp_path: Path) -> None:
    found = looked(machine("container", tmp_path))
    hidden = verdicts(found, "not readable here")
    assert hidden == {
        *("governor", "clock rate", "turbo", "idle states", "SMT sibling", "interrupts"),
        *("mitigations", "NUMA", "hugepages", "swap", "clock", "realtime budget"),
    }
    for what in hidden:
        assert "(a container on bare metal)" in finding(found, what).why
    ration = finding(found, "processor ration")
    assert ration.read == "/sys/fs/cgroup: 1.5 cores' worth in each 100 ms"
    assert (found.core, finding(found, "locking").verdict) == (5, "costs latency")


def test_an_empty_machine_says_of_everything_that_it_cannot_be_read(tmp_path: Path) -> None:
    found = looked(Tree(tmp_path))
    assert found.core == 0
    assert found.place == "an unknown machine"
    fine = {"NVIDIA GPU", "TensorRT", "CUDA compiler"}
    assert verdicts(found, "ok") == fine
    assert verdicts(found, "costs latency") == {"C compiler"}
    assert all(f.why for f in found.findings if f.verdict == "not readable here")
    everything = {f.what for f in looked(machine("vm", tmp_path / "vm")).findings}
    assert {f.what for f in found.findings} == everything


def test_nonsense_in_a_file_spoils_one_finding(tmp_path: Path) -> None:
    whole = looked(machine("tuned", tmp_path / "a"))
    found = looked(machine("tuned", tmp_path / "b", scaling_max_freq="fast"))
    changed = [f.what for f, g in zip(found.findings, whole.findings, strict=True) if f != g]
    assert changed == ["clock rate"]
    assert "not as the kernel documents it" in finding(found, "clock rate").why


def test_the_core_that_is_given_is_looked_at(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path)
    found = looked(tree, pin=5)
    assert (found.core, found.chosen) == (5, "given")
    assert "core 5" in finding(found, "isolation").why
    assert finding(found, "isolation").fix.startswith("boot with isolcpus=5")
    gone = looked(tree, pin=12)
    assert finding(gone, "isolation").why == "the hot thread cannot be pinned to core 12"


@pytest.mark.parametrize(
    ("change", "what", "word"),
    [
        ({"sm_mhz": 345}, "clocks", "-lgc 1980,1980"),
        ({"power_limit_w": 400.0}, "power", "-pl 700"),
        ({"throttled": ("idle", "power cap")}, "throttling", "PERFORMANCE"),
        ({"persistent": False}, "persistence", "nvidia-persistenced"),
        ({"compute_mode": "prohibited"}, "compute mode", "-c DEFAULT"),
        ({"mig": True}, "MIG", "-mig 0"),
    ],
)
def test_each_state_of_a_gpu(
    change: dict[str, object], what: str, word: str, tmp_path: Path
) -> None:
    state = replace(H100, **change)  # type: ignore[arg-type]
    found = looked(machine("tuned", tmp_path), GpuReading((state,)))
    assert finding(found, what).verdict == "costs latency"
    assert word in finding(found, what).fix
    assert verdicts(found, "costs latency") == {what, "TensorRT"}


def test_what_the_driver_does_not_say_is_not_readable(tmp_path: Path) -> None:
    names = ("sm_mhz", "power_w", "throttled", "persistent", "compute_mode", "mig", "ecc")
    state = replace(H100, **dict.fromkeys(names), missing=dict.fromkeys(names, "Not Supported"))  # type: ignore[arg-type]
    found = looked(machine("tuned", tmp_path), GpuReading((state,)))
    assert verdicts(found, "not readable here") == {
        *("clocks", "power", "throttling", "persistence", "compute mode"),
    }
    assert "NVML: Not Supported" in finding(found, "clocks").why
    assert finding(found, "MIG").read == finding(found, "ECC").read == "not supported"


def test_this_machine_can_be_examined() -> None:
    found = examine(Tree(), read_gpus())
    assert len(found.findings) > 15
    assert all(f.read or f.why for f in found.findings)
