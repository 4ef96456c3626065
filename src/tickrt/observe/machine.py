"""What a figure was measured on.

Entry points: `machine_info()`, `package_version`. It reads `/proc` and package metadata, imports
nothing heavy, and leaves out what it cannot find.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["machine_info", "package_version"]

_PACKAGES = ("numpy", "numba", "onnxruntime", "hftbacktest")


def _proc(path: str, key: str) -> str | None:
    """The first value of `key` in a ``key : value`` file."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _memory_gib() -> float | None:
    total = _proc("/proc/meminfo", "MemTotal")
    return round(int(total.split()[0]) / 2**20, 1) if total else None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _governor() -> str | None:
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def package_version(name: str) -> str | None:
    """The version of an installed package, read without importing it; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine_info() -> dict[str, str | int | float]:
    """CPU model, cores, memory, kernel, Python and the versions that matter."""
    found: dict[str, str | int | float | None] = {
        "cpu": _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": _usable_cores(),
        "mhz": _proc("/proc/cpuinfo", "cpu MHz"),
        "governor": _governor(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    found.update({package: package_version(package) for package in _PACKAGES})
    return {key: value for key, value in found.items() if value is not None}
