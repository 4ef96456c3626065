"""The one reader of environment variables.

Entry points: `cache_folder` (where tickrt keeps what it can make again), `compiled_folder` (where
compiled kernels are), `data_folder` (recorded market data), `variable` (one that the user named),
`for_child` (what a process that we start gets).

Invariants: read when asked, never kept: a variable that changes counts from then on. Read by others
before us: ``NUMBA_DISABLE_JIT`` and its kin by Numba, ``NO_COLOR`` and ``COLUMNS`` by rich.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_folder", "compiled_folder", "data_folder", "for_child", "variable"]


def variable(name: str) -> str:
    """The text of a variable; empty where it is not set."""
    return os.environ.get(name, "")


def cache_folder(part: str) -> Path:
    """``$XDG_CACHE_HOME/tickrt/<part>``, by default in ``~/.cache``. It may not be there yet."""
    home = variable("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tickrt" / part


def compiled_folder() -> Path:
    """Where compiled kernels are kept: ``$NUMBA_CACHE_DIR`` or the user's cache folder."""
    given = variable("NUMBA_CACHE_DIR")
    return Path(given) if given else cache_folder("numba")


def data_folder(default: Path) -> Path:
    """Recorded market data, for tests and benchmarks: ``$TICKRT_DATA`` or `default`."""
    given = variable("TICKRT_DATA")
    return Path(given) if given else default


def for_child(changes: Mapping[str, str]) -> dict[str, str]:
    """Our variables with `changes`, for a process that we start."""
    return {**os.environ, **changes}
