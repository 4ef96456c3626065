"""How fast the CPU's clock ticks, and what the machine itself costs.

Entry points: `ticks_per_ns()` (measured once per process against CLOCK_MONOTONIC) and
`floor(ticks_per_ns)`.

Invariants: under ``NUMBA_DISABLE_JIT=1`` the clock counts nanoseconds and the rate is exactly 1.
Known limits: the counter must run at a constant rate and be the same on all cores (`constant_tsc`,
`nonstop_tsc`: every x86 server of the last ten years); the error of the rate is below 2e-5.
"""

from __future__ import annotations

import time
from functools import lru_cache

from tickrt.compile.jit import JIT
from tickrt.observe.histogram import new_histograms, percentiles
from tickrt.observe.kernels import measure_floor, read_clock

__all__ = ["floor", "ticks_per_ns"]

_CALIBRATION_S = 0.03
_ATTEMPTS = 15


def _pair() -> tuple[int, int]:
    """(CPU ticks, CLOCK_MONOTONIC ns) of one moment: the tightest of several attempts."""
    best = (1 << 62, 0, 0)
    for _ in range(_ATTEMPTS):
        before = time.monotonic_ns()
        ticks = int(read_clock())
        after = time.monotonic_ns()
        best = min(best, (after - before, ticks, (before + after) // 2))
    return best[1], best[2]


@lru_cache(maxsize=1)
def ticks_per_ns() -> float:
    """Ticks of `intrinsics.clock` per nanosecond. The first call takes 30 ms."""
    if not JIT:
        return 1.0
    read_clock()
    ticks_0, ns_0 = _pair()
    time.sleep(_CALIBRATION_S)
    ticks_1, ns_1 = _pair()
    return (ticks_1 - ticks_0) / (ns_1 - ns_0)


def floor(rounds: int = 200_000) -> dict[str, dict[str, float]]:
    """What no latency measured here can be below, in µs, as `histogram.percentiles` gives it.

    ``clock_read``: two clock reads in a row. ``spin``: one round of a loop that only reads the
    clock; its p999 and max are interrupts and other tenants of the core, not tickrt.
    """
    hist = new_histograms(2)
    measure_floor(hist, 0, 1)
    hist = new_histograms(2)
    measure_floor(hist, 0, rounds)
    rate = ticks_per_ns()
    return {"clock_read": percentiles(hist, 0, rate), "spin": percentiles(hist, 1, rate)}
