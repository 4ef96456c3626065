"""What NVML reads of a real GPU."""

from __future__ import annotations

import pytest

from tickrt.observe.doctor.examine import examine
from tickrt.observe.doctor.tree import Tree
from tickrt.observe.nvml import GpuState, read_gpus

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpus() -> tuple[GpuState, ...]:
    reading = read_gpus()
    if reading.problem is not None:
        pytest.skip(reading.problem)
    return reading.gpus


def test_its_state_is_that_of_a_gpu(gpus: tuple[GpuState, ...]) -> None:
    for index, gpu in enumerate(gpus):
        assert gpu.index == index
        assert gpu.name
        assert gpu.driver[0].isdigit()
        assert gpu.bus.count(":") == 2
        for now, most in ((gpu.sm_mhz, gpu.sm_max_mhz), (gpu.pcie_width, gpu.pcie_max_width)):
            assert now is None or most is None or 0 < now <= most
        if gpu.memory_total_mib is not None and gpu.memory_used_mib is not None:
            assert gpu.memory_used_mib <= gpu.memory_total_mib
        absent = {name for name, value in vars(gpu).items() if value is None}
        assert absent == set(gpu.missing)


def test_the_doctor_reads_it(gpus: tuple[GpuState, ...]) -> None:
    found = examine(Tree(), read_gpus()).findings
    assert {f.group for f in found} >= {"GPU", *(f"GPU {gpu.index}" for gpu in gpus)}
    (read,) = [f for f in found if f.what == "NVML"]
    assert read.verdict == "ok"
