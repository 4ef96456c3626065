"""The policies' parameters, named and validated here, numbered in the kernels.

`TakerParams` and `MakerParams` are frozen; `.row()` gives the float64[16] that the kernels read, in
the order of the fields. Signals are p(up) − p(down), in −1…1; prices in ticks; quantities in lots.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import POLICY_MAKER, POLICY_TAKER
from tickrt.errors import ConfigError

__all__ = ["PARAMS_WIDTH", "FallbackParams", "MakerParams", "Params", "TakerParams"]

PARAMS_WIDTH = 16
LARGEST = 1 << 53  # up to here a float64 holds every whole number
FALLBACK_AT = 12  # where the fallback's numbers start in a row


def _require(condition: bool, where: str, expected: str, got: object) -> None:
    if not condition:
        raise ConfigError(f"{where}: expected {expected}, got {got!r}")


def _finite(params: Any) -> None:
    """Every field a finite number, so that the kernels need not check."""
    for field in fields(params):
        value = getattr(params, field.name)
        where = f"{type(params).__name__}.{field.name}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(number and math.isfinite(value), where, "a finite number", value)
        _require(abs(value) <= LARGEST, where, f"at most {LARGEST:,}", value)


@dataclass(frozen=True)
class FallbackParams:
    """The rule-based signal that a strategy trades on while its model cannot be trusted.

    Attributes:
        imbalance_weight: p(up) − p(down) per unit of queue imbalance at the touch, in 0…1.
        microprice_weight: the same per spread by which the microprice leaves the mid, in 0…1.
            The two weights add up to at most 1.
    """

    imbalance_weight: float = 0.5
    microprice_weight: float = 0.5

    def __post_init__(self) -> None:
        _finite(self)
        total = self.imbalance_weight + self.microprice_weight
        for name in ("imbalance_weight", "microprice_weight"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"FallbackParams.{name}", "0…1", value)
        _require(total <= 1, "FallbackParams", "weights that add up to at most 1", total)


@dataclass(frozen=True)
class TakerParams:
    """The taker: an IOC order at the touch when the signal passes a threshold.

        tr.StrategySettings(policy=tr.TakerParams(enter_threshold=0.4, max_position_lots=5))

    Attributes:
        enter_threshold: buys when signal ≥ this, sells when signal ≤ −this; in 0…1.
        exit_threshold: closes a long when signal ≤ −this (a short when signal ≥ this); at most
            `enter_threshold`. Negative: closes already when the signal has decayed.
        qty_lots: lots of one entry.
        max_position_lots: the position never grows beyond this.
        cooldown_ns: time between two orders of the strategy.
        max_spread_ticks: no entry when the spread is wider.
        through_ticks: how far beyond the touch the limit price is.
    """

    policy: ClassVar[int] = POLICY_TAKER

    enter_threshold: float = 0.6
    exit_threshold: float = 0.2
    qty_lots: int = 1
    max_position_lots: int = 10
    cooldown_ns: int = 100_000_000
    max_spread_ticks: int = 10
    through_ticks: int = 0

    def __post_init__(self) -> None:
        _finite(self)
        enter, leave = self.enter_threshold, self.exit_threshold
        _require(0 < enter <= 1, "TakerParams.enter_threshold", "more than 0, at most 1", enter)
        _require(-1 <= leave <= enter, "TakerParams.exit_threshold", f"-1…{enter}", leave)
        _sizes(self)
        _at_least(self, cooldown_ns=0, max_spread_ticks=1, through_ticks=0)

    def row(self, fallback: FallbackParams | None = None) -> NDArray[np.float64]:
        """float64[16]: the fields in order, then the fallback's at `FALLBACK_AT`."""
        return _row(self, fallback)


@dataclass(frozen=True)
class MakerParams:
    """The maker: a post-only quote on each side around a skewed price.

    The quotes stand `half_spread_ticks` around
    ``mid + signal · signal_skew_ticks − position / max_position · position_skew_ticks``
    (the inventory skew of Avellaneda and Stoikov 2008, linear in the position) and never cross.

        tr.StrategySettings(policy=tr.MakerParams(half_spread_ticks=2.0))

    Attributes:
        qty_lots: lots of one quote.
        max_position_lots: a side is not quoted beyond this, open orders included.
        half_spread_ticks: distance of a quote from the skewed price; more than 0.
        signal_skew_ticks: shift of the price at a signal of 1.
        position_skew_ticks: shift against the position at the maximal position.
        requote_ticks: a quote stays while it is at most this far from where it should be.
        min_rest_ns: a quote is not replaced earlier than this after it was sent.
    """

    policy: ClassVar[int] = POLICY_MAKER

    qty_lots: int = 1
    max_position_lots: int = 10
    half_spread_ticks: float = 1.0
    signal_skew_ticks: float = 2.0
    position_skew_ticks: float = 2.0
    requote_ticks: int = 1
    min_rest_ns: int = 100_000_000

    def __post_init__(self) -> None:
        _finite(self)
        _sizes(self)
        half = self.half_spread_ticks
        _require(half > 0, "MakerParams.half_spread_ticks", "more than 0", half)
        _at_least(self, signal_skew_ticks=0, position_skew_ticks=0, requote_ticks=0, min_rest_ns=0)

    def row(self, fallback: FallbackParams | None = None) -> NDArray[np.float64]:
        """float64[16]: the fields in order, then the fallback's at `FALLBACK_AT`."""
        return _row(self, fallback)


Params = TakerParams | MakerParams


def _sizes(params: Params) -> None:
    name = type(params).__name__
    qty, most = params.qty_lots, params.max_position_lots
    whole = float(qty).is_integer() and float(most).is_integer()
    _require(whole, f"{name}.qty_lots and .max_position_lots", "whole lots", (qty, most))
    _require(qty >= 1, f"{name}.qty_lots", "at least 1", qty)
    _require(most >= qty, f"{name}.max_position_lots", f"at least qty_lots ({qty})", most)


def _at_least(params: Params, **least: float) -> None:
    for field, bound in least.items():
        value = getattr(params, field)
        _require(value >= bound, f"{type(params).__name__}.{field}", f"at least {bound}", value)


def _row(params: Params, fallback: FallbackParams | None) -> NDArray[np.float64]:
    row = np.zeros(PARAMS_WIDTH, np.float64)
    values = list(asdict(params).values())
    row[: len(values)] = values
    row[FALLBACK_AT : FALLBACK_AT + 2] = list(asdict(fallback or FallbackParams()).values())
    return row
