"""How long the engine is taken to have thought: the time that a backtest charges for each
inference.

Entry points: `InferenceLatency.constant`, `.per_row`, `.resampled`, `.from_cdf`, `.from_report`,
`.measured`.

Invariant: everything but `measured` is deterministic: the n-th inference of a backtest is charged
the n-th time, modulo their number. `measured` also keeps the loop busy for the off-path work after
each order; what it charged is in the backtest's `charged_ns()` and can be charged again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tickrt.config import HftbacktestSettings
from tickrt.errors import ConfigError
from tickrt.runtime.report_types import Report

__all__ = ["InferenceLatency"]

_DRAWS = 1 << 14  # times drawn from a distribution


@dataclass(frozen=True)
class InferenceLatency:
    """Use the constructors below.

    Attributes:
        samples_ns: int64[n ≥ 1], charged in turn.
        measure: charge what each inference takes in the backtest itself instead.
        source: where the times come from, for the report.
    """

    samples_ns: NDArray[np.int64]
    measure: bool = False
    source: str = "given"

    @classmethod
    def constant(cls, ns: int) -> InferenceLatency:
        """The same time for every inference."""
        return cls(_times([ns]), source=f"constant {ns} ns")

    @classmethod
    def per_row(cls, ns: ArrayLike) -> InferenceLatency:
        """Times that were measured row by row, charged in this order."""
        return cls(_times(ns), source="measured per row")

    @classmethod
    def resampled(cls, ns: ArrayLike, seed: int = 0) -> InferenceLatency:
        """Measured times, drawn from with replacement."""
        times = _times(ns)
        drawn = np.random.default_rng(seed).choice(times, _DRAWS)
        return cls(drawn, source=f"{len(times)} measured times, resampled with seed {seed}")

    @classmethod
    def from_cdf(cls, points: Sequence[Sequence[float]], seed: int = 0) -> InferenceLatency:
        """Times drawn from a distribution given as (µs, share at or below it), as histograms give.

        Raises:
            ConfigError: no points, or shares that do not rise to 1.
        """
        table = np.asarray(points, np.float64)
        if table.ndim != 2 or table.shape[1] != 2 or len(table) == 0:
            raise ConfigError("inference latency: expected points (µs, share), got none")
        times, shares = table[:, 0], table[:, 1]
        if (np.diff(shares) < 0).any() or abs(shares[-1] - 1) > 1e-6 or shares[0] < 0:
            raise ConfigError("inference latency: the shares of a distribution must rise to 1")
        uniform = np.random.default_rng(seed).random(_DRAWS)
        index = np.minimum(np.searchsorted(shares, uniform), len(times) - 1)
        drawn = np.rint(times[index] * 1e3)
        return cls(_times(drawn), source=f"a measured distribution, drawn with seed {seed}")

    @classmethod
    def from_report(
        cls, report: Report, stage: str = "tick_to_decision", seed: int = 0
    ) -> InferenceLatency:
        """The distribution of a stage in the report of a `tickrt run`.

        Raises:
            ConfigError: the report has no such stage.
        """
        stages = report.latency_cdf
        if not stages.get(stage):
            raise ConfigError(
                f"report: no latency of stage {stage!r}; it has {', '.join(stages) or 'none'}"
            )
        return cls.from_cdf(stages[stage], seed)

    @classmethod
    def configured(cls, gateway: HftbacktestSettings | None) -> InferenceLatency:
        """What a session's gateway says; None: `measured`.

        Raises:
            ConfigError, DataError: its report cannot be read, or has no such times.
        """
        if gateway is None:
            return cls.measured()
        if gateway.inference_latency_us is not None:
            return cls.constant(round(gateway.inference_latency_us * 1000))
        path = gateway.inference_latency_report
        if path is None:
            return cls.measured()
        from tickrt.report.report import load_report

        return cls.from_report(load_report(path))

    @classmethod
    def measured(cls) -> InferenceLatency:
        """What each inference takes in the backtest itself: true to this machine, not
        repeatable."""
        return cls(_times([0]), measure=True, source="measured in this backtest")


def _times(ns: ArrayLike) -> NDArray[np.int64]:
    values = np.atleast_1d(np.asarray(ns))
    if values.ndim != 1 or len(values) == 0:
        raise ConfigError("inference latency: expected a list of times in ns, got an empty one")
    if not np.isfinite(values).all() or (values < 0).any() or (values > 3_600e9).any():
        raise ConfigError("inference latency: expected times of 0 ns … 1 h")
    return values.astype(np.int64)
