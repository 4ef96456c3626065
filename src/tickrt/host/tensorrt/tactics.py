"""Which tactics a builder may try: those of libraries that are really here.

Entry point: `usable_sources`. TensorRT 8 takes kernels from cuBLAS and cuDNN. Where one of them is
missing, or only a stand-in that satisfies the linker, the builder would crash in it; without it, it
finds other kernels for most layers.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from tickrt.errors import BuildError
from tickrt.host.tensorrt.versions import members

__all__ = ["usable_sources"]

# Source: its library, and a function of no argument that gives its version.
_LIBRARIES = {
    "CUBLAS": ("libcublas.so", "cublasGetCudartVersion"),
    "CUBLAS_LT": ("libcublasLt.so", "cublasLtGetVersion"),
    "CUDNN": ("libcudnn.so", "cudnnGetVersion"),
}
_RELEASES = (13, 12, 11, 10, 9, 8)
_LEAST_VERSION = 1000  # what a real one answers; a stand-in answers anything else
_PROVEN = "EDGE_MASK_CONVOLUTIONS"  # of TensorRT's own, what was run without the libraries


def _mapped(library: str) -> list[str]:
    """Where this process has it mapped already: TensorRT links to some."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split(maxsplit=5)[-1].strip() for line in file if library in line}
    return sorted(path for path in paths if os.path.basename(path).startswith(library))


def _is_real(library: str, function: str) -> bool:
    """Whether it can be loaded, and is no stand-in."""
    for name in _mapped(library) or [f"{library}.{release}" for release in _RELEASES]:
        try:
            call = getattr(ctypes.CDLL(name), function)
        except (OSError, AttributeError):
            continue
        call.restype = ctypes.c_size_t
        return int(call()) >= _LEAST_VERSION
    return False


def usable_sources(trt: Any, config: Any) -> str:
    """Take the sources away from `config` whose libraries are not here.

    Returns:
        what was taken away, and why; empty where nothing was.

    Raises:
        BuildError: the library refuses the rest.
    """
    sources = members(trt, "TacticSource")
    if not sources or not hasattr(config, "get_tactic_sources"):
        return ""
    mask = int(config.get_tactic_sources())
    missing = [
        name
        for name, (library, function) in _LIBRARIES.items()
        if name in sources and mask >> int(sources[name]) & 1 and not _is_real(library, function)
    ]
    if not missing:
        return ""
    rest = mask & (1 << int(sources[_PROVEN])) if _PROVEN in sources else 0
    if not config.set_tactic_sources(rest):
        raise BuildError(f"TensorRT cannot do without the tactics of {', '.join(missing)}")
    return f"without the tactics of {', '.join(missing)}: their libraries are not here"
