"""A GPU's card, its link, its node, and the ways into its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machines import machine
from tickrt.observe.doctor import gpu, tools
from tickrt.observe.doctor.tree import Tree
from tickrt.observe.nvml import GpuReading, GpuState

NONE = GpuReading(problem="no driver")
BUS = "0000:3b:00.0"
LOADER = "libvulkan.so.1"


@pytest.mark.parametrize(
    ("change", "verdict", "read"),
    [
        ({}, "ok", "32 GT/s × 16 of 32 GT/s × 16"),
        ({"current_link_width": "8"}, "costs latency", "32 GT/s × 8 of 32 GT/s × 16"),
        ({"current_link_speed": "2.5 GT/s PCIe"}, "costs latency", "2.5 GT/s × 16 of"),
        ({"current_link_speed": "Unknown"}, "not readable here", ""),
        ({"current_link_width": "0"}, "not readable here", ""),
    ],
)
def test_link(change: dict[str, str], verdict: str, read: str, tmp_path: Path) -> None:
    found = gpu.link(machine("tuned", tmp_path, **change), BUS)
    assert found.verdict == verdict
    assert found.read.startswith(read)


@pytest.mark.parametrize(
    ("core", "change", "verdict"),
    [
        (2, {}, "ok"),
        (6, {}, "costs latency"),
        (2, {"numa_node": "1", "local_cpulist": "4-7"}, "costs latency"),
        (2, {"numa_node": "-1"}, "not readable here"),
        (2, {"numa_node": "-1", "node__online": "0"}, "ok"),
    ],
)
def test_node(core: int, change: dict[str, str], verdict: str, tmp_path: Path) -> None:
    found = gpu.gpu_node(machine("tuned", tmp_path, **change), core, BUS)
    assert found.verdict == verdict
    if verdict == "costs latency":
        assert found.fix == f"--pin a core of {change.get('local_cpulist', '0-3')}"


def test_vulkan_is_the_one_way_into_its_memory(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path)
    assert gpu.vulkan(tree).verdict == "ok"
    tree.at(f"/usr/lib/x86_64-linux-gnu/{LOADER}").unlink()
    for there in (False, True):
        found = gpu.gdrcopy(tree)
        assert found.verdict == "ok"
        assert found.why.startswith("not used: ")
        assert found.read.endswith("/dev/gdrdrv there") == there
        assert gpu.vulkan(tree).verdict == "costs latency"
        assert "host memory" in gpu.vulkan(tree).why
        for path in ("/dev/gdrdrv", "/usr/lib/x86_64-linux-gnu/libgdrapi.so.2"):
            tree.at(path).touch()


def test_mps(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path)
    assert gpu.mps(tree).read.endswith("a control daemon is running")
    tree.at("/proc/77/comm").write_text("python3\n")
    assert gpu.mps(tree).read.endswith("no daemon is running")
    tree.at("/usr/bin/nvidia-cuda-mps-control").unlink()
    assert gpu.mps(tree).verdict == "costs latency"


def test_a_gpu_is_seen_by_any_of_its_traces(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert not gpu.has_gpu(tree, NONE)
    assert gpu.has_gpu(tree, GpuReading((GpuState(index=0, name="x", bus="y", driver="z"),)))
    tree.at("/dev").mkdir()
    tree.at("/dev/nvidiactl").touch()
    assert not gpu.has_gpu(tree, NONE)
    tree.at("/dev/nvidia0").touch()
    assert gpu.has_gpu(tree, NONE)


def test_only_nvidias_display_controllers_are_cards(tmp_path: Path) -> None:
    assert gpu.cards(machine("tuned", tmp_path / "a")) == [BUS]
    assert gpu.cards(machine("tuned", tmp_path / "b", **{f"{BUS}__class": "0x040300"})) == []
    assert gpu.cards(machine("vm", tmp_path / "c")) == []


def test_the_driver_is_named_with_or_without_nvml(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path)
    assert "580.95.05" in gpu.driver(tree, NONE).read
    state = GpuState(index=0, name="NVIDIA H200", bus=BUS, driver="590.1")
    assert gpu.driver(tree, GpuReading((state,))).read == "590.1; NVIDIA H200"


def test_tools_matter_where_there_is_a_gpu(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for there, verdict in ((True, "costs latency"), (False, "ok")):
        assert tools.tensorrt(lambda name: None, there).verdict == verdict
        assert tools.cuda_compiler(tree, lambda name: None, there).verdict == verdict
    known = {"tensorrt": "10.9", "tensorrt-rtx": "1.7", "nvidia-cuda-nvrtc": "13.0"}
    assert tools.tensorrt(known.get, True).read == "tensorrt 10.9, tensorrt-rtx 1.7"
    assert tools.cuda_compiler(tree, known.get, True).read.endswith("nvidia-cuda-nvrtc 13.0")
    assert tools.c_compiler(tree).verdict == "costs latency"
    assert tools.c_compiler(machine("tuned", tmp_path / "t")).read == "/usr/bin/gcc"
