"""Pre-trade risk: limits, their state, the reasons, and what a person may do to them.

`RiskLimits` is frozen and validated; `new_risk([limits…])` makes the arrays that
`risk_kernels.check_intent` reads and writes. `rearm`, `halt` and `kill` are the person's levers.

The checks run in the order of `RiskReason`; the first that fails is the reason. Cancels always
pass. A halt is latched: nothing but `rearm` ends it. These are the controls of the EU's RTS 6
(Delegated Regulation 2017/589), articles 15 and 18, and of the US Market Access Rule 15c3-5, as far
as they can be applied to one strategy's own orders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import ConfigError
from tickrt.strategy.params import LARGEST

__all__ = [
    "MAX_SYMBOLS",
    "Risk",
    "RiskLimits",
    "RiskReason",
    "halt",
    "kill",
    "new_risk",
    "rearm",
]

MAX_SYMBOLS = 128
LIMITS_WIDTH = 16
RECENT = 16  # orders that the duplicate check remembers
MAX_MESSAGES = 1024  # largest `max_messages`


class RiskReason(IntEnum):
    """Why an intent did not become an order; 0 = it did."""

    PASS = codes.REASON_PASS
    INSTRUMENT = codes.REASON_INSTRUMENT  # the strategy may not trade this symbol
    STALE_DATA = codes.REASON_STALE_DATA  # the newest event is too old
    NOT_FINITE = codes.REASON_NOT_FINITE  # the signal is NaN or infinite, or outside −1…1
    CONFIDENCE = codes.REASON_CONFIDENCE  # the signal is too weak
    SIZE = codes.REASON_SIZE  # no quantity, or too much
    NOTIONAL = codes.REASON_NOTIONAL  # the order's value is too large
    PRICE_COLLAR = codes.REASON_PRICE_COLLAR  # too far from the mid, or there is none
    POSITION = codes.REASON_POSITION  # with all open orders filled the position would be too large
    LOSS_LIMIT = codes.REASON_LOSS_LIMIT  # the account lost too much: this halts the strategy
    DUPLICATE = codes.REASON_DUPLICATE  # the same order again
    MESSAGE_RATE = codes.REASON_MESSAGE_RATE  # too many messages in a moment
    THROTTLE = codes.REASON_THROTTLE  # executed too often in a while
    HALTED = codes.REASON_HALTED  # halted or killed, until a person re-arms it


_MAY_BE_ZERO = ("symbols", "min_signal", "duplicate_ns")


@dataclass(frozen=True)
class RiskLimits:
    """The limits of one strategy. Money is in the account's currency (the coin, if inverse).

        tr.StrategySettings(risk=tr.RiskLimits(max_order_lots=5, max_loss=0.05))

    Attributes:
        symbols: indices of the symbols that it may trade; None: all.
        max_data_age_ns: largest time since the newest event.
        min_signal: smallest |signal| of a new order; 0 lets a maker quote on a flat signal.
        max_order_lots: largest order.
        max_order_notional: largest value of an order, in the contract's quote currency.
        price_collar: largest |price − mid| / mid.
        max_position_lots: largest |position|, as if every open order of that side were filled.
        max_loss: loss since the last (re-)arming that halts the strategy.
        duplicate_ns: the same side, price, quantity and time in force within this is a duplicate.
        max_messages: orders and cancels within `message_window_ns` (sliding); at most 1024.
        message_window_ns: the window of `max_messages`.
        max_executions: executions within `execution_window_ns` (windows laid end to end).
        execution_window_ns: the window of `max_executions`.
    """

    symbols: tuple[int, ...] | None = None
    max_data_age_ns: int = 1_000_000_000
    min_signal: float = 0.0
    max_order_lots: int = 100
    max_order_notional: float = 1_000_000.0
    price_collar: float = 0.01
    max_position_lots: int = 100
    max_loss: float = math.inf
    duplicate_ns: int = 1_000_000
    max_messages: int = 200
    message_window_ns: int = 1_000_000_000
    max_executions: int = 1_000
    execution_window_ns: int = 60_000_000_000

    def __post_init__(self) -> None:
        positive = [f.name for f in fields(self) if f.name not in _MAY_BE_ZERO]
        for name in positive:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"RiskLimits.{name}: expected more than 0, got {value!r}")
            if isinstance(value, int) and value > LARGEST:
                raise ConfigError(f"RiskLimits.{name}: expected at most {LARGEST:,}, got {value!r}")
        if not 0 <= self.min_signal <= 1:
            raise ConfigError(f"RiskLimits.min_signal: expected 0…1, got {self.min_signal!r}")
        if not self.duplicate_ns >= 0:
            raise ConfigError(f"RiskLimits.duplicate_ns: expected ≥ 0, got {self.duplicate_ns!r}")
        if self.max_messages > MAX_MESSAGES:
            message = f"expected at most {MAX_MESSAGES}, got {self.max_messages!r}"
            raise ConfigError(f"RiskLimits.max_messages: {message}")
        for symbol in self.symbols or ():
            if not 0 <= symbol < MAX_SYMBOLS:
                expected = f"expected indices 0…{MAX_SYMBOLS - 1}"
                raise ConfigError(f"RiskLimits.symbols: {expected}, got {symbol!r}")

    def row(self) -> NDArray[np.float64]:
        """float64[16]: every field but `symbols`, in order."""
        row = np.zeros(LIMITS_WIDTH, np.float64)
        values = [getattr(self, f.name) for f in fields(self) if f.name != "symbols"]
        row[: len(values)] = values
        return row


class Risk(NamedTuple):
    """The risk state of P strategies; every array's leading axis but `killed`'s is the strategy."""

    limits: NDArray[np.float64]  # [P, 16] RiskLimits.row()
    allowed: NDArray[np.int64]  # [P, MAX_SYMBOLS] 1 = may trade this symbol
    halted: NDArray[np.int64]  # [P] 1 = latched
    killed: NDArray[np.int64]  # [1] 1 = every strategy is stopped
    base: NDArray[np.float64]  # [P] equity when it was armed; NaN: take it at the next check
    last_id: NDArray[np.int64]  # [P] largest order id that passed
    recent: NDArray[
        np.int64
    ]  # [P, RECENT, 5] side, px, qty, tif, ts of the last orders that passed
    passed: NDArray[np.int64]  # [P] new orders that passed
    sent_ns: NDArray[np.int64]  # [P, MAX_MESSAGES] times of the last messages that passed
    sent: NDArray[np.int64]  # [P] messages that passed
    window_ns: NDArray[np.int64]  # [P] start of the present execution window
    window_fills: NDArray[np.int64]  # [P] executions before it
    rejects: NDArray[np.int64]  # [P, 16] how often each RiskReason was the answer


def new_risk(limits: Sequence[RiskLimits]) -> Risk:
    """The armed state of one strategy for each of `limits`.

    Raises:
        ConfigError: no limits.
    """
    if not limits:
        raise ConfigError("risk: expected the limits of at least one strategy, got none")
    count = len(limits)
    allowed = np.zeros((count, MAX_SYMBOLS), np.int64)
    for i, limit in enumerate(limits):
        allowed[i, slice(None) if limit.symbols is None else list(limit.symbols)] = 1
    long_ago = -(1 << 62)
    return Risk(
        limits=np.stack([limit.row() for limit in limits]),
        allowed=allowed,
        halted=np.zeros(count, np.int64),
        killed=np.zeros(1, np.int64),
        base=np.zeros(count),
        last_id=np.zeros(count, np.int64),
        recent=np.full((count, RECENT, 5), long_ago, np.int64),
        passed=np.zeros(count, np.int64),
        sent_ns=np.full((count, MAX_MESSAGES), long_ago, np.int64),
        sent=np.zeros(count, np.int64),
        window_ns=np.full(count, long_ago, np.int64),
        window_fills=np.zeros(count, np.int64),
        rejects=np.zeros((count, 16), np.int64),
    )


def rearm(risk: Risk, p: int) -> None:
    """A person lets strategy `p` trade again: ends its halt; losses count from now on."""
    risk.base[p] = math.nan
    risk.halted[p] = 0


def halt(risk: Risk, p: int) -> None:
    """Stop strategy `p` until it is re-armed; its cancels still pass."""
    risk.halted[p] = 1


def kill(risk: Risk, on: bool = True) -> None:
    """Stop every strategy (or, with `on` False, lift that; halts of single strategies stay)."""
    risk.killed[0] = int(on)
