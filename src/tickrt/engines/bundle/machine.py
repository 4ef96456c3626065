"""What a machine has that engines depend on: GPUs, libraries with their versions, the platform.

Entry points: `gpus` (architecture, name, driver; empty without a GPU), `Here.look`.

Invariants: nothing is installed for it: `libcuda` comes with the driver; libraries are asked for
their version without being imported.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tickrt import __version__

__all__ = ["Gpu", "Here", "cuda_library", "gpus", "library_version", "platform_name"]

_MAJOR: Final = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_MINOR: Final = 76


@dataclass(frozen=True)
class Gpu:
    """A GPU: `arch` is its compute capability (``8.9``), `driver` its driver's CUDA version."""

    index: int
    name: str
    arch: str
    driver: str


def cuda_library() -> ctypes.CDLL | None:
    """The driver's library; None on a machine without an NVIDIA driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def gpus() -> list[Gpu]:
    """The GPUs that the driver shows; empty without a driver or a GPU."""
    cuda = cuda_library()
    if cuda is None or cuda.cuInit(0) != 0:
        return []
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    shown = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        shown.append(Gpu(index, name.value.decode(), f"{major.value}.{minor.value}", driver))
    return shown


def platform_name() -> str:
    """Operating system and processor, as the manifest records them."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def library_version(name: str) -> str | None:
    """The installed version, read without importing the library."""
    if name in ("native", "resident"):  # what tickrt generates itself
        return __version__
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Here:
    """What decides over loading: GPUs, and installed libraries with their versions."""

    gpus: tuple[Gpu, ...]
    libraries: Mapping[str, str]
    platform: str

    @classmethod
    def look(cls, libraries: Sequence[str], with_gpus: bool = True) -> Here:
        """This machine; without its GPUs the CUDA driver is left alone."""
        versions = {name: library_version(name) for name in libraries}
        installed = {name: version for name, version in versions.items() if version}
        return cls(tuple(gpus()) if with_gpus else (), installed, platform_name())
