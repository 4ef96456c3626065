"""Where a figure was measured, and where its result goes. Shared by every benchmark.

`machine()` describes the machine and the library versions; `write_result(name, result)` writes
``benchmarks/results/<name>.json`` with that description beside the figures; `status_mb` reads the
memory of a process.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "machine", "status_mb", "write_result"]

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numpy", "numba", "onnxruntime", "hftbacktest", "nautilus_trader", "tickrt")


def _cpu_model() -> str:
    """The processor's name as the operating system knows it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    """The installed version of `library`; None where it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The processor, its cores, the system, and the versions that a figure depends on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `result` with the machine's description to ``results/<name>.json``; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"benchmark": name, "machine": machine(), **result}
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def status_mb(pid: int, name: str) -> float | None:
    """A line of a process's status (``VmRSS``, ``VmHWM``) in MB; None when it is over."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return None
