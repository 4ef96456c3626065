"""A thread on a core of its own, as the loop has one, and what that core does to it by itself.

Entry points: `hot_core()`, `on_core(core, body)`, `core_floor(gap_us, rows)`, `core_gaps(seconds)`.

The floors name what is not ours: interrupts, other tenants of the machine, its hypervisor. A row's
latency cannot have a better tail than a thread that does nothing but spin there.

Invariants: only that thread is pinned. What is started from another one, engine hosts above all,
does not inherit its core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from benchmarks._hot_kernels import spin_gaps, spin_stretches
from tickrt.host.cores import process_cores
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.engine_bench import percentiles
from tickrt.runtime.placement import Placement, place_this_thread

__all__ = ["core_floor", "core_gaps", "hot_core", "on_core"]

_CORE = 3  # where there are as many
_STRETCH_US = 2.0  # about as long as the echo takes
_LIMIT_US = 1.0
_MOST = 100_000
_Result = TypeVar("_Result")


def hot_core() -> int | None:
    """The loop's core: the fourth that this process may use; None where there are fewer."""
    cores = sorted(process_cores())
    return cores[_CORE] if len(cores) > _CORE else None


def on_core(core: int | None, body: Callable[[], _Result]) -> _Result:
    """What `body` gives in a thread pinned to `core` (None: not pinned); raises what it raises."""
    given: list[_Result] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            place_this_thread(Placement(core))
            given.append(body())
        except BaseException as error:  # raised again in the calling thread
            failed.append(error)

    thread = threading.Thread(target=work, name="benchmark-hot")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return given[0]


def core_floor(gap_us: float, rows: int) -> dict[str, float]:
    """How long stretches of 2 µs of spinning took here, one every `gap_us`: percentiles, in µs."""
    rate = ticks_per_ns() * 1e3
    took = np.zeros(rows, np.int64)
    spin_stretches(0, 0, took[:1])  # compiled
    spin_stretches(round(gap_us * rate), round(_STRETCH_US * rate), took)
    return percentiles(took)


def core_gaps(seconds: float) -> dict[str, Any]:
    """How often, and for how long, this core leaves a spinning thread alone for more than 1 µs.

    Returns:
        ``seconds``; ``limit_us``; ``per_second``; ``share``: of the time, 0 … 1; ``gap_us``:
        percentiles of the gaps, None where there was none.
    """
    rate = ticks_per_ns() * 1e3
    gaps = np.zeros(_MOST, np.int64)
    spin_gaps(0, 0, gaps)  # compiled
    count = int(spin_gaps(round(1e6 * seconds * rate), round(_LIMIT_US * rate), gaps))
    held = gaps[:count]
    return {
        "seconds": seconds,
        "limit_us": _LIMIT_US,
        "per_second": round(count / seconds, 1),
        "share": round(float(held.sum()) / (1e6 * seconds * rate), 6),
        "gap_us": percentiles(held) if count else None,
    }
