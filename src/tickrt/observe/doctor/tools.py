"""What engines are built with: TensorRT, and compilers for the CPU and the GPU.

Entry points: a check for each question; `installed` says which version of a package is there.
"""

from __future__ import annotations

from collections.abc import Callable

from tickrt.observe.doctor.finding import Outcome, costs, ok
from tickrt.observe.doctor.tree import Tree

__all__ = ["c_compiler", "cuda_compiler", "tensorrt"]

Versions = Callable[[str], str | None]

_TENSORRT = ("tensorrt", "tensorrt-rtx", "tensorrt-lean")
_NVRTC = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")
_NO_GPU = "no GPU here to use it"


def tensorrt(version_of: Versions, gpu: bool) -> Outcome:
    """Which TensorRT this Python can import."""
    found = [f"{name} {version}" for name in _TENSORRT if (version := version_of(name))]
    if found:
        return ok(", ".join(found))
    if not gpu:
        return ok("none importable", _NO_GPU)
    return costs(
        "none importable",
        "models run on the CPU",
        "pip install 'tickrt[tensorrt]', or 'tickrt[rtx]' for an RTX GPU",
    )


def c_compiler(tree: Tree) -> Outcome:
    """What compiles an engine for this CPU."""
    program = tree.program("cc", "gcc", "clang")
    if program is not None:
        return ok(program)
    return costs(
        "no cc, gcc or clang",
        "no code of its own for this CPU can be made of a model: ONNX Runtime runs it",
        "apt install gcc, or clang",
    )


def cuda_compiler(tree: Tree, version_of: Versions, gpu: bool) -> Outcome:
    """What compiles a kernel for the GPU."""
    nvcc = tree.program("nvcc")
    package = next((f"{name} {v}" for name in _NVRTC if (v := version_of(name))), None)
    nvrtc = tree.library("libnvrtc.so*") or package
    read = f"nvcc {nvcc or 'not found'}, NVRTC {nvrtc or 'not found'}"
    if nvcc or nvrtc:
        return ok(read)
    if not gpu:
        return ok(read, _NO_GPU)
    return costs(read, "no kernel can be made of a model", "pip install 'tickrt[gpu]'")
