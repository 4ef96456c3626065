"""What this process may ask of the kernel: memory that stays, a priority in real time.

Entry points: `may_lock_memory`, `may_run_realtime`. The doctor reports them; a run that is refused
says the same.

Invariants: a capability counts only in the machine's own user namespace: in another one the kernel
does not honour it for these requests.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tickrt.observe.doctor.tree import Tree

__all__ = ["Permit", "may_lock_memory", "may_run_realtime"]

_IPC_LOCK, _SYS_NICE = 14, 23  # capability(7)
_EVERYBODY = ["0", "0", "4294967295"]


class Permit(NamedTuple):
    """Whether something is permitted, by what, and how to get it."""

    given: bool
    read: str
    fix: str


def _capable(tree: Tree, bit: int) -> bool:
    mask = tree.value("/proc/self/status", "CapEff")
    own = tree.maybe("/proc/self/uid_map").split() in (_EVERYBODY, [])
    return own and bool(mask) and bool(int(mask, 16) >> bit & 1)


def _limit(tree: Tree, name: str) -> float:
    """The soft limit of this process; infinite where it is unlimited."""
    match = re.search(rf"^{name}\s+(\S+)", tree.text("/proc/self/limits"), re.M)
    if match is None:
        return 0.0
    return float("inf") if match[1] == "unlimited" else float(match[1])


def may_lock_memory(tree: Tree) -> Permit:
    """Whether all of the process's memory may be locked, now and later.

    Less than all is none: an allocation beyond the limit would fail in the middle of a run.

    Raises:
        OSError: its limits cannot be read.
    """
    fix = (
        "`USER - memlock unlimited` in /etc/security/limits.d/tickrt.conf and a new login; "
        "LimitMEMLOCK=infinity in a unit; --ulimit memlock=-1 of a container"
    )
    if _capable(tree, _IPC_LOCK):
        return Permit(True, "CAP_IPC_LOCK", "")
    limit = _limit(tree, "Max locked memory")
    if limit == float("inf"):
        return Permit(True, "RLIMIT_MEMLOCK unlimited", "")
    return Permit(False, f"RLIMIT_MEMLOCK {limit / 2**20:.3g} MiB, no CAP_IPC_LOCK", fix)


def may_run_realtime(tree: Tree, priority: int = 1) -> Permit:
    """Whether a thread may have this priority of ``SCHED_FIFO``, 1 … 99.

    Raises:
        OSError: its limits cannot be read.
    """
    fix = (
        "`USER - rtprio 99` in /etc/security/limits.d/tickrt.conf and a new login; "
        "LimitRTPRIO=99 in a unit; --ulimit rtprio=99 --cap-add SYS_NICE of a container"
    )
    if _capable(tree, _SYS_NICE):
        return Permit(True, "CAP_SYS_NICE", "")
    limit = _limit(tree, "Max realtime priority")
    read = f"RLIMIT_RTPRIO {limit:.0f}"
    if limit >= priority:
        return Permit(True, read, "")
    return Permit(False, f"{read}, no CAP_SYS_NICE", fix)
