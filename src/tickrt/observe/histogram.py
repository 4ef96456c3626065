"""Latency histograms that a compiled loop can write and Python can read.

Entry points: `new_histograms(n)`; `kernels.record(hist, i, ticks)` inside compiled code;
`percentiles(hist, i, ticks_per_ns)` and `cdf(…)` outside, in microseconds.

Invariants: `record` never allocates and never fails; percentiles err by at most 1/32 (3.2 %) and
never on the low side, count, mean, minimum and maximum are exact. Reading while a loop writes gives
a picture that may be a few records old in places; that is harmless for reporting.

Source of the bucket layout: HdrHistogram, http://hdrhistogram.org.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.observe.kernels import BUCKETS, COUNT, MAX, MIN, STATS, SUB, SUM, bucket_of, record

__all__ = [
    "Histograms",
    "bucket_of",
    "bucket_top",
    "cdf",
    "merge",
    "new_histograms",
    "percentile",
    "percentiles",
    "record",
    "reset",
]

_NO_MIN = np.iinfo(np.int64).max


class Histograms(NamedTuple):
    """`n` histograms of int64 clock ticks.

    buckets: int64[n, BUCKETS] counts; stats: int64[n, STATS] count, sum, min, max.
    """

    buckets: NDArray[np.int64]
    stats: NDArray[np.int64]


def new_histograms(n: int) -> Histograms:
    """`n` empty histograms, with their pages touched so that recording never faults one in."""
    hist = Histograms(np.zeros((n, BUCKETS), np.int64), np.zeros((n, STATS), np.int64))
    reset(hist)
    return hist


def reset(hist: Histograms) -> None:
    """Forget everything recorded so far."""
    hist.buckets[:] = 0
    hist.stats[:] = 0
    hist.stats[:, MIN] = _NO_MIN


def merge(into: Histograms, i: int, other: Histograms, j: int) -> None:
    """Add histogram `j` of `other` to histogram `i` of `into`."""
    into.buckets[i] += other.buckets[j]
    into.stats[i, COUNT] += other.stats[j, COUNT]
    into.stats[i, SUM] += other.stats[j, SUM]
    into.stats[i, MIN] = min(into.stats[i, MIN], other.stats[j, MIN])
    into.stats[i, MAX] = max(into.stats[i, MAX], other.stats[j, MAX])


def bucket_top(index: int) -> int:
    """The largest value that falls into bucket `index`."""
    if index < SUB:
        return index
    shift = index // SUB - 1
    return ((index - SUB * shift + 1) << shift) - 1


def percentile(hist: Histograms, i: int, q: float) -> int:
    """The value in ticks that a share `q` (0…1) of the records does not exceed; 0 when empty."""
    count = int(hist.stats[i, COUNT])
    if count == 0:
        return 0
    rank = min(max(math.ceil(q * count), 1), count)
    index = int(np.searchsorted(np.cumsum(hist.buckets[i]), rank))
    top = int(hist.stats[i, MAX])
    return top if index == BUCKETS - 1 else min(bucket_top(index), top)


def percentiles(hist: Histograms, i: int, ticks_per_ns: float) -> dict[str, float]:
    """Summary of histogram `i` in µs: ``count, mean, min, p50, p90, p99, p999, max``.

    Args:
        hist: the histograms.
        i: which of them.
        ticks_per_ns: `clock.ticks_per_ns()`.

    An empty histogram gives zeros.
    """
    per_us = ticks_per_ns * 1e3
    count = int(hist.stats[i, COUNT])
    if count == 0:
        return dict.fromkeys(("count", "mean", "min", "p50", "p90", "p99", "p999", "max"), 0)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {
        "count": count,
        "mean": int(hist.stats[i, SUM]) / count / per_us,
        "min": int(hist.stats[i, MIN]) / per_us,
        **{name: percentile(hist, i, q) / per_us for name, q in shares.items()},
        "max": int(hist.stats[i, MAX]) / per_us,
    }


def cdf(hist: Histograms, i: int, ticks_per_ns: float) -> list[tuple[float, float]]:
    """Points (µs, share of records at or below it) of histogram `i`, one per non-empty bucket."""
    count = int(hist.stats[i, COUNT])
    if count == 0:
        return []
    top = int(hist.stats[i, MAX])
    filled = np.flatnonzero(hist.buckets[i])
    shares = np.cumsum(hist.buckets[i][filled]) / count
    per_us = ticks_per_ns * 1e3
    values = [min(bucket_top(int(index)), top) / per_us for index in filled]
    values[-1] = top / per_us
    return [(value, float(share)) for value, share in zip(values, shares, strict=True)]
