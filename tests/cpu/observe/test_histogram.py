"""The histograms count exactly and err by at most 1/32, on the high side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.observe import clock
from tickrt.observe.histogram import (
    bucket_of,
    bucket_top,
    cdf,
    merge,
    new_histograms,
    percentile,
    percentiles,
    record,
)
from tickrt.observe.kernels import BUCKETS

LARGEST_IN_RANGE = bucket_top(BUCKETS - 2)


@given(st.integers(0, LARGEST_IN_RANGE))
@settings(max_examples=300, deadline=None)
def test_a_bucket_holds_its_value_within_a_32nd(value: int) -> None:
    index = bucket_of(value)
    below = bucket_top(index - 1) if index else -1
    assert below < value <= bucket_top(index)
    assert bucket_top(index) - value <= value / 32


def test_buckets_follow_each_other_without_a_hole() -> None:
    tops = [bucket_top(i) for i in range(BUCKETS)]
    assert all(bucket_of(top) == i for i, top in enumerate(tops))
    assert all(bucket_of(top + 1) == i + 1 for i, top in enumerate(tops[:-1]))


def test_values_outside_the_range_are_counted_and_the_maximum_is_exact() -> None:
    hist = new_histograms(1)
    record(hist, 0, -5)
    record(hist, 0, 1 << 60)
    summary = percentiles(hist, 0, 1e-3)
    assert summary["count"] == 2
    assert summary["min"] == 0
    assert summary["max"] == 1 << 60
    assert summary["p999"] == 1 << 60


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999])
def test_percentiles_are_close_and_never_low(q: float) -> None:
    values = np.random.default_rng(7).lognormal(7, 1.5, 20_000).astype(np.int64)
    hist = new_histograms(2)
    for value in values:
        record(hist, 1, value)
    exact = np.sort(values)[int(np.ceil(q * len(values))) - 1]
    assert exact <= percentile(hist, 1, q) <= exact * (1 + 1 / 32)
    assert percentiles(hist, 1, 1.0)["mean"] == pytest.approx(values.mean() / 1e3)
    assert percentiles(hist, 0, 1.0)["count"] == 0


def test_cdf_ends_at_one_and_at_the_maximum() -> None:
    hist = new_histograms(1)
    for value in (10, 10, 2000, 123_456):
        record(hist, 0, value)
    points = cdf(hist, 0, 1e-3)
    assert [share for _, share in points] == [0.5, 0.75, 1.0]
    assert points[0][0] == 10
    assert points[-1][0] == 123_456
    assert cdf(new_histograms(1), 0, 1.0) == []


def test_merge_adds_up() -> None:
    one, two = new_histograms(1), new_histograms(1)
    record(one, 0, 5)
    record(two, 0, 1)
    record(two, 0, 9)
    merge(one, 0, two, 0)
    summary = percentiles(one, 0, 1e-3)
    assert (summary["count"], summary["min"], summary["max"], summary["mean"]) == (3, 1, 9, 5)


def test_the_clock_has_a_plausible_rate_and_a_floor() -> None:
    rate = clock.ticks_per_ns()
    assert 0.01 < rate < 10
    assert clock.ticks_per_ns() == rate
    floor = clock.floor(rounds=1000)
    assert floor["clock_read"]["count"] == floor["spin"]["count"] == 1000
    assert 0 <= floor["clock_read"]["p50"] <= floor["spin"]["max"]
