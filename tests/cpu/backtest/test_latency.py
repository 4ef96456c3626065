"""The times that a backtest charges for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.reports import make_report
from tickrt.backtest.latency import InferenceLatency
from tickrt.config import HftbacktestSettings
from tickrt.errors import ConfigError, DataError
from tickrt.report.report import write_report


def test_constant_and_per_row_keep_their_times() -> None:
    assert list(InferenceLatency.constant(70).samples_ns) == [70]
    given = InferenceLatency.per_row([5, 3, 9])
    assert list(given.samples_ns) == [5, 3, 9]
    assert given.samples_ns.dtype == np.int64


def test_resampling_is_seeded_and_draws_only_what_was_measured() -> None:
    first = InferenceLatency.resampled([10, 20, 40], seed=1).samples_ns
    assert np.array_equal(first, InferenceLatency.resampled([10, 20, 40], seed=1).samples_ns)
    assert not np.array_equal(first, InferenceLatency.resampled([10, 20, 40], seed=2).samples_ns)
    assert set(first.tolist()) == {10, 20, 40}


def test_a_distribution_is_drawn_from_in_its_shares() -> None:
    drawn = InferenceLatency.from_cdf([(1.0, 0.25), (2.0, 0.25), (3.5, 1.0)]).samples_ns
    assert set(drawn.tolist()) == {1000, 3500}
    assert np.mean(drawn == 1000) == pytest.approx(0.25, abs=0.02)


def test_a_report_of_a_run_can_be_charged() -> None:
    report = make_report(latency_cdf={"tick_to_decision": [(4.0, 1.0)], "book": [(0.1, 1.0)]})
    assert set(InferenceLatency.from_report(report).samples_ns.tolist()) == {4000}
    with pytest.raises(ConfigError, match="no latency of stage 'engine'; it has tick_to_decision"):
        InferenceLatency.from_report(report, "engine")


@pytest.mark.parametrize("times", [[], [-1], [float("nan")], [4e12]])
def test_impossible_times_are_refused(times: Any) -> None:
    with pytest.raises(ConfigError, match="inference latency: expected"):
        InferenceLatency.per_row(times)


@pytest.mark.parametrize("points", [[], [(1.0, 0.5)], [(1.0, 0.9), (2.0, 0.2), (3.0, 1.0)]])
def test_impossible_distributions_are_refused(points: Any) -> None:
    with pytest.raises(ConfigError, match="inference latency"):
        InferenceLatency.from_cdf(points)


def test_a_gateway_says_what_is_charged(tmp_path: Path) -> None:
    assert InferenceLatency.configured(None).measure
    assert InferenceLatency.configured(HftbacktestSettings()).measure
    constant = HftbacktestSettings(inference_latency_us=1.5)
    assert list(InferenceLatency.configured(constant).samples_ns) == [1500]
    write_report(make_report(latency_cdf={"tick_to_decision": [[4.0, 1.0]]}), tmp_path)
    for path in (tmp_path, tmp_path / "report.json"):
        gateway = HftbacktestSettings(inference_latency_report=path)
        assert set(InferenceLatency.configured(gateway).samples_ns.tolist()) == {4000}
    for wrong in ("{", None):
        path = tmp_path / "broken.json"
        path.write_text(wrong) if wrong else path.unlink()
        with pytest.raises(DataError, match=r"broken\.json: cannot read a report"):
            InferenceLatency.configured(HftbacktestSettings(inference_latency_report=path))
