"""Scales map their ends to their ends, ticks lie inside, numbers read well."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.report.format import number
from tickrt.report.svg import Linear, Log, Nines, duration, gaps, polyline, steps


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
@settings(max_examples=200)
def test_linear_ticks_lie_inside_and_are_few(low: float, span: float) -> None:
    scale = Linear(low, low + span, 0.0, 100.0)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 16
    assert all(-0.5 <= scale(value) <= 100.5 for value, _ in ticks)


def test_log_scale_has_a_tick_per_decade() -> None:
    scale = Log(0.01, 1000.0, 0.0, 500.0)
    labels = [label for _, label in scale.ticks()]
    assert labels == ["10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms"]
    assert scale(0.01) == 0
    assert scale(1000.0) == 500
    assert scale(0.0) == 0  # below the axis: at its start


def test_nines_are_equally_far_apart() -> None:
    scale = Nines(0.0, 500.0, nines=5)
    assert scale(0.9) == pytest.approx(100)
    assert scale(0.999) == pytest.approx(300)
    assert scale(1.0) == pytest.approx(500)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (None, "–"),
        (0, "0 ns"),
        (0.0123, "12.3 ns"),
        (0.9999, "1 µs"),
        (999.9, "1 ms"),
        (1234.5, "1.23 ms"),
        (2e6, "2 s"),
        (91.3e6, "91.3 s"),
    ],
)
def test_durations_read_well(us: float | None, text: str) -> None:
    assert duration(us) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (-5, "−5"), (0.0, "0"), (0.000123456, "0.0001235"), (None, "–")],
)
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_missing_value_breaks_the_line() -> None:
    runs = gaps([0, 1, 2, 3, 4], [1.0, None, None, 2.0, 3.0])
    assert runs == [[(0, 1.0)], [(3, 2.0), (4, 3.0)]]
    assert polyline([], "x") == ""
    assert 'd="M0 1L5 1L5 2"' in steps([(0, 1), (5, 2)], "x")
