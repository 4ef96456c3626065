"""What the strategies of a session know: policy, parameters, mode, account.

`new_strategies([StrategyConfig…])` makes the arrays that the kernels of `strategy` and `execution`
read and write; the leading axis is the strategy.

Invariant: order ids of strategy p are p · 2^40 + 1, + 2, … and never used twice, so an id names its
strategy. Account: cash and fees are in the quote currency (linear contracts) or in the coin
(inverse).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.compile.codes import INSTRUMENT_COLUMNS
from tickrt.errors import ConfigError
from tickrt.market.instrument import Instrument
from tickrt.memory.records import INTENT_DTYPE, MAX_INTENTS
from tickrt.strategy.params import PARAMS_WIDTH, FallbackParams, Params, TakerParams

__all__ = [
    "ORDER_ID_SHIFT",
    "Mode",
    "Policy",
    "Strategies",
    "StrategyConfig",
    "new_intents",
    "new_strategies",
]

ORDER_ID_SHIFT = 40  # an order id >> this is its strategy


class Mode(IntEnum):
    """What a strategy trades on."""

    LIVE = codes.MODE_LIVE  # the model's signal
    FALLBACK = codes.MODE_FALLBACK  # the rule-based signal
    SHADOW = codes.MODE_SHADOW  # the model's signal, but its intents are not sent
    HALTED = codes.MODE_HALTED  # only cancels, until a person re-arms it


class Policy(IntEnum):
    """The policies that `decide` knows."""

    TAKER = codes.POLICY_TAKER
    MAKER = codes.POLICY_MAKER


class Strategies(NamedTuple):
    """The state of P strategies; every array's leading axis is the strategy."""

    policy: NDArray[np.int64]  # [P] Policy
    engine: NDArray[np.int64]  # [P] index of the engine that it listens to
    symbol: NDArray[np.int64]  # [P] index of the symbol that it trades
    params: NDArray[np.float64]  # [P, 16] TakerParams.row() or MakerParams.row()
    mode: NDArray[np.int64]  # [P] Mode
    healthy: NDArray[np.int64]  # [P] healthy results in a row since the last fault
    position: NDArray[np.int64]  # [P] lots, negative is short
    cash: NDArray[np.float64]  # [P] account currency, without fees
    fees: NDArray[np.float64]  # [P] account currency, paid so far
    turnover: NDArray[np.float64]  # [P] account currency, traded value so far
    fills: NDArray[np.int64]  # [P] executions so far
    last_ns: NDArray[np.int64]  # [P] when it last decided to send an order
    next_id: NDArray[np.int64]  # [P] the next order's id
    instrument: NDArray[np.float64]  # [P, 8] Instrument.row()
    seq: NDArray[np.int64]  # [P] row of the decision at hand
    now_ns: NDArray[np.int64]  # [P] its time
    signal: NDArray[np.float64]  # [P] its p(up) − p(down)
    mid2: NDArray[np.int64]  # [P] best bid + best ask then, in ticks; 0: a side is missing


@dataclass(frozen=True)
class StrategyConfig:
    """One strategy: what it trades, on which engine, how.

    Attributes:
        instrument: the traded instrument.
        symbol: index of that symbol in the session.
        engine: index of the engine in the session.
        params: `TakerParams` or `MakerParams`; chooses the policy too.
        fallback: the rule-based signal's weights.
        mode: the mode it starts in.
    """

    instrument: Instrument
    symbol: int = 0
    engine: int = 0
    params: Params = field(default_factory=TakerParams)
    fallback: FallbackParams = field(default_factory=FallbackParams)
    mode: Mode = Mode.LIVE


def new_strategies(configs: Sequence[StrategyConfig]) -> Strategies:
    """The state of fresh strategies: no position, no cash, no order.

    Raises:
        ConfigError: no strategy, or an instrument whose tick or lot size is not positive.
    """
    if not configs:
        raise ConfigError("strategies: expected at least one, got none")
    count = len(configs)
    for i, config in enumerate(configs):
        sizes = (config.instrument.tick_size, config.instrument.lot_size)
        if min(sizes) <= 0:
            raise ConfigError(f"strategies[{i}].instrument: tick and lot size must be > 0: {sizes}")
        if config.symbol < 0 or config.engine < 0:
            raise ConfigError(f"strategies[{i}]: symbol and engine are indices from 0")

    def whole(values: list[int]) -> NDArray[np.int64]:
        return np.array(values, np.int64)

    params = np.zeros((count, PARAMS_WIDTH))
    instrument = np.zeros((count, INSTRUMENT_COLUMNS))
    for i, config in enumerate(configs):
        params[i] = config.params.row(config.fallback)
        instrument[i] = config.instrument.row()
    return Strategies(
        policy=whole([config.params.policy for config in configs]),
        engine=whole([config.engine for config in configs]),
        symbol=whole([config.symbol for config in configs]),
        params=params,
        mode=whole([int(config.mode) for config in configs]),
        healthy=np.zeros(count, np.int64),
        position=np.zeros(count, np.int64),
        cash=np.zeros(count),
        fees=np.zeros(count),
        turnover=np.zeros(count),
        fills=np.zeros(count, np.int64),
        last_ns=np.full(count, -(1 << 62), np.int64),
        next_id=whole([(i << ORDER_ID_SHIFT) + 1 for i in range(count)]),
        instrument=instrument,
        seq=np.zeros(count, np.int64),
        now_ns=np.zeros(count, np.int64),
        signal=np.zeros(count),
        mid2=np.zeros(count, np.int64),
    )


def new_intents(count: int = MAX_INTENTS) -> NDArray[np.void]:
    """A zeroed INTENT_DTYPE[count] for `decide` to write into."""
    return np.zeros(count, INTENT_DTYPE)
