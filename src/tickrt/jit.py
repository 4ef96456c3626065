"""How tickrt compiles: one decorator, one cache that can never be stale.

`kernel` is `numba.njit` with the project's settings: no GIL, no exceptions on division, cached on
disk. Numba's own cache looks only at the file that holds the function, not at the files of the
functions that it calls; so the cache folder here is named after a digest of *all* of tickrt's
compiled source, and a changed callee can never be served from an old cache.

`JIT` is False under ``NUMBA_DISABLE_JIT=1``: then the same kernels run as plain Python.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config

from tickrt import __version__

__all__ = ["JIT", "cache_dir", "kernel"]

JIT = not config.DISABLE_JIT


def _digest() -> str:
    """SHA-256 over every compiled source file of the package and Numba's version."""
    root = Path(__file__).parent
    digest = hashlib.sha256(f"{__version__} {numba.__version__}".encode())
    files = [*root.rglob("*kernels.py"), root / "intrinsics.py", Path(__file__)]
    for path in sorted(files):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_dir() -> Path:
    """Where compiled kernels are kept: ``$NUMBA_CACHE_DIR`` or the user's cache folder."""
    base = os.environ.get("NUMBA_CACHE_DIR")
    if base:
        return Path(base)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "tickrt" / "numba"


config.CACHE_DIR = str(cache_dir() / _digest())


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call: no Python object, no GIL, cached on disk."""
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
