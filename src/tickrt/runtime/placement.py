"""Where and how the hot thread runs: its core, its priority, memory that stays.

Entry points: `Placement` (what is asked), `locked_memory` (around a run), `place_this_thread` (in
the hot thread). What came of each is an `Arrangement`.

Invariants: what is not permitted is reported, with the reason and how to permit it, and the run
goes on without. Core and priority are the calling thread's alone: threads that exist keep theirs,
and threads that it starts do not inherit the priority (``SCHED_RESET_ON_FORK``); both end with the
thread. Memory is locked for the process and unlocked again, unless its owner had locked some
before: then it is left as it is.

Known limits: Linux. Memory that somebody unlocks meanwhile is not locked again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tickrt.errors import ConfigError
from tickrt.observe.doctor.permits import may_lock_memory, may_run_realtime
from tickrt.observe.doctor.tree import Tree
from tickrt.runtime.report_types import Arrangement

__all__ = ["Placement", "locked_memory", "place_this_thread"]

_CURRENT, _FUTURE = 1, 2  # MCL_CURRENT, MCL_FUTURE


@dataclass(frozen=True)
class Placement:
    """What is asked of the system for a hot thread.

    Attributes:
        pin_cpu: run it on this core only.
        lock_memory: keep all of the process's memory, now and later, out of swap.
        realtime_priority: run it before everything else, ``SCHED_FIFO`` 1 … 99.
    """

    pin_cpu: int | None = None
    lock_memory: bool = False
    realtime_priority: int | None = None


@contextmanager
def locked_memory(wanted: bool) -> Iterator[tuple[Arrangement, ...]]:
    """Lock the process's memory while the block runs; gives what came of it, if it is wanted."""
    if not wanted:
        yield ()
        return
    refused = _memory_refused()
    if refused is not None:
        yield (refused,)
        return
    before = _locked_kib()
    code = _libc().mlockall(_CURRENT | _FUTURE)
    if code != 0:
        why = f"mlockall: {os.strerror(ctypes.get_errno())}"
        yield (Arrangement(what="lock_memory", done=False, detail=why, fix=_MORE_MEMORY),)
        return
    try:
        kept = "" if before == 0 else "; it stays locked: some of it was before"
        detail = f"{_locked_kib() / 1024:.0f} MiB{kept}"
        yield (Arrangement(what="lock_memory", done=True, detail=detail),)
    finally:
        if before == 0:
            _libc().munlockall()


_MORE_MEMORY = "a machine or a container with more memory, or --no-lock-memory"


def _memory_refused() -> Arrangement | None:
    """Why memory may not be locked; asked before, for a limit would fail later allocations."""
    try:
        permit = may_lock_memory(Tree())
    except OSError:
        return None  # the kernel will say
    if permit.given:
        return None
    return Arrangement(what="lock_memory", done=False, detail=permit.read, fix=permit.fix)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _locked_kib() -> int:
    """Memory of this process that is locked, KiB; 0 where the kernel does not say."""
    try:
        return int((Tree().value("/proc/self/status", "VmLck") or "0").split()[0])
    except OSError:
        return 0


def place_this_thread(wanted: Placement) -> tuple[Arrangement, ...]:
    """Pin the calling thread and raise its priority, as wanted.

    Raises:
        ConfigError: there is no such core, or this process may not use it.
    """
    made = []
    others = os.sched_getaffinity(0)  # of whoever started it: where everything else runs
    if wanted.pin_cpu is not None:
        made.append(_pin(wanted.pin_cpu))
        others -= {wanted.pin_cpu}
    elif len(others) == 1:
        others = set()
    if wanted.realtime_priority is not None:
        made.append(_raise_priority(wanted.realtime_priority, alone=not others))
    return tuple(made)


def _pin(cpu: int) -> Arrangement:
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, OverflowError):
        raise ConfigError(
            f"pin_cpu: the hot thread cannot run on core {cpu}: choose one of "
            f"{sorted(os.sched_getaffinity(0))}"
        ) from None
    return Arrangement(what="pin_cpu", done=True, detail=f"core {cpu}")


def _raise_priority(priority: int, alone: bool) -> Arrangement:
    what: Final = "realtime_priority"
    if alone:
        return Arrangement(
            what=what,
            done=False,
            detail="the process may use this core only: nothing else of it would run",
            fix="give the process a second core: taskset, or its container's cpuset",
        )
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError as error:
        read, fix = _why_not(priority)
        detail = f"SCHED_FIFO {priority}: {error.strerror} ({read})"
        return Arrangement(what=what, done=False, detail=detail, fix=fix)
    return Arrangement(what=what, done=True, detail=f"SCHED_FIFO {priority}{_budget()}")


def _why_not(priority: int) -> tuple[str, str]:
    """What permits a priority, and how to get it."""
    try:
        permit = may_run_realtime(Tree(), priority)
    except OSError as error:
        return f"{error.filename}: {error.strerror}", "CAP_SYS_NICE, or a limit of rtprio"
    return permit.read, permit.fix or "a control group with a share of real time (rt_runtime_us)"


def _budget() -> str:
    """How the kernel may stop such a thread; empty where it may not."""
    paths = (f"/proc/sys/kernel/sched_rt_{name}_us" for name in ("runtime", "period"))
    runtime, period = (int(Tree().maybe(path) or -1) for path in paths)
    if runtime < 0 or runtime >= period:
        return ""
    stopped = (period - runtime) / 1000
    return f" (the kernel may stop it for {stopped:g} ms of each {period / 1000:g})"
