"""Compiled side of the latency histograms: recording, and the floor of the machine's clock.

Buckets are log-linear as in HdrHistogram (Tene): values below 32 have a bucket each, every further
power of two is cut into 32, so a bucket is at most 1/32 of its value wide. Values are int64 ticks
of `intrinsics.clock`; negative ones count as 0 and those past the last bucket count in it (`MAX`
and `SUM` stay exact).
"""

from __future__ import annotations

import numpy as np

from tickrt.compile.intrinsics import clock, leading_zeros
from tickrt.compile.jit import kernel

SUB_BITS = 5
SUB = 1 << SUB_BITS
BUCKETS = 1216  # up to 2**42 ticks: more than twenty minutes at 3 GHz

COUNT, SUM, MIN, MAX = 0, 1, 2, 3
STATS = 4


@kernel
def bucket_of(value):
    """Index of the bucket that holds `value` (int64)."""
    if value < SUB:
        return max(value, 0)
    shift = 63 - leading_zeros(np.uint64(value)) - SUB_BITS
    return min(SUB * shift + (value >> shift), BUCKETS - 1)


@kernel
def record(hist, i, value):
    """Count `value` ticks in histogram `i`."""
    value = max(np.int64(value), np.int64(0))
    hist.buckets[i, bucket_of(value)] += 1
    stats = hist.stats
    stats[i, COUNT] += 1
    stats[i, SUM] += value
    if value < stats[i, MIN]:
        stats[i, MIN] = value
    if value > stats[i, MAX]:
        stats[i, MAX] = value


@kernel
def read_clock():
    """The CPU's clock now, for callers that are not compiled."""
    return clock()


@kernel
def measure_floor(hist, i, rounds):
    """Record what the machine itself costs: two clock reads in a row (`i`), and the time from one
    round to the next of a loop that does nothing else (`i + 1`: interrupts, other tenants)."""
    previous = clock()
    for _ in range(rounds):
        first = clock()
        second = clock()
        record(hist, i, second - first)
        record(hist, i + 1, first - previous)
        previous = first
