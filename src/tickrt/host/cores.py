"""Which cores a process beside the loop may run on: never the loop's own.

A thread that is pinned hands its core on to whatever it starts. A host that inherited the loop's
core would take it from the loop each time that it wakes, every 500 microseconds.

Entry points: `process_cores()`, `cores_beside(core)`.

Known limits: Linux. A process whose every thread is pinned to one core has no other.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["cores_beside", "process_cores"]

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def process_cores() -> frozenset[int]:
    """The cores that threads of this process may use: a pinned one does not narrow them."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            found |= os.sched_getaffinity(int(thread))
    return frozenset(found)


def cores_beside(core: int | None = None) -> frozenset[int]:
    """Where to run what serves a loop on `core`: never empty.

    Args:
        core: the loop's. None: that of the calling thread, where it is pinned to a single one.

    Returns:
        the process's cores without that one and, while others are left, without those that share
        its execution units (SMT); all of them where there is nothing else.
    """
    ours = process_cores()
    if core is None:
        mine = os.sched_getaffinity(0)
        core = min(mine) if len(mine) == 1 else None
    if core is None:
        return ours
    return ours - _siblings(core) - {core} or ours - {core} or ours


def _siblings(core: int) -> set[int]:
    """The hardware threads of its physical core; none where the system does not say."""
    try:
        text = Path(_SIBLINGS.format(core)).read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found
