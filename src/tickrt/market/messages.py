"""The fixed-size records that pass between the policy, risk, the gateway and the report.

`INTENT_DTYPE` (64 bytes) is what a policy wants: a new order or a cancel. `reason` is written by
the risk checks (0 = passed). `FILL_DTYPE` (64 bytes) is one execution of one of our orders.

Invariants: no padding that is not a field, so two runs can be compared byte for byte; every price
is in ticks, every order quantity in lots; `side` is +1 for buy and −1 for sell.

`INSTRUMENT_COLUMNS` names the row of numbers that kernels know an instrument by (`instrument_row`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CANCEL",
    "CONTRACT",
    "FILL_DTYPE",
    "GTC",
    "GTX",
    "INSTRUMENT_COLUMNS",
    "INTENT_DTYPE",
    "INVERSE",
    "IOC",
    "LOT",
    "MAKER_FEE",
    "MAX_INTENTS",
    "NEW",
    "TAKER_FEE",
    "TICK",
    "InstrumentLike",
    "instrument_row",
]

INTENT_DTYPE = np.dtype(
    [
        ("seq", "i8"),  # the row that it was decided on
        ("ts_ns", "i8"),  # when it was decided
        ("order_id", "i8"),  # NEW: a fresh id; CANCEL: the order to cancel
        ("px_tick", "i8"),
        ("qty_lots", "i8"),
        ("signal", "f4"),  # p(up) − p(down)
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("kind", "i1"),  # NEW or CANCEL
        ("side", "i1"),  # +1 buy, −1 sell
        ("tif", "i1"),  # GTC, GTX or IOC
        ("mode", "i1"),  # the strategy's mode when it decided
        ("reason", "i2"),  # RiskReason; 0 = passed
        ("spare", "i2"),  # always 0
        ("mid2_tick", "i8"),  # best bid + best ask in ticks when decided: twice the mid
    ],
    align=True,
)

FILL_DTYPE = np.dtype(
    [
        ("ts_ns", "i8"),
        ("order_id", "i8"),
        ("px_tick", "i8"),
        ("qty_lots", "i8"),
        ("position", "i8"),  # lots held after this fill
        ("fee", "f8"),  # in the account's currency; negative is a rebate
        ("mid2_tick", "i8"),  # best bid + best ask in ticks when we learnt of the fill
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("side", "i1"),  # +1 we bought, −1 we sold
        ("maker", "i1"),  # 1 our order was resting
        ("spare", "i2"),  # always 0
    ],
    align=True,
)

# Intent kinds.
NEW = 1
CANCEL = 2

# Time in force.
GTC = 1  # rests until it is cancelled
GTX = 2  # post-only: refused if it would take
IOC = 3  # takes what it can now, the rest expires

MAX_INTENTS = 8  # that one decision may write

INSTRUMENT_COLUMNS = (
    "tick_size",
    "lot_size",
    "inverse",
    "contract_size",
    "maker_fee",
    "taker_fee",
    "spare_6",
    "spare_7",
)
TICK, LOT, INVERSE, CONTRACT, MAKER_FEE, TAKER_FEE = range(6)


class InstrumentLike(Protocol):
    """What `instrument_row` reads; `market.instrument.Instrument` has it."""

    @property
    def tick_size(self) -> float: ...
    @property
    def lot_size(self) -> float: ...
    @property
    def contract(self) -> str: ...
    @property
    def contract_size(self) -> float: ...
    @property
    def maker_fee(self) -> float: ...
    @property
    def taker_fee(self) -> float: ...


def instrument_row(instrument: InstrumentLike) -> NDArray[np.float64]:
    """The float64[8] row of `INSTRUMENT_COLUMNS` for an instrument."""
    row = np.zeros(len(INSTRUMENT_COLUMNS), np.float64)
    row[TICK] = instrument.tick_size
    row[LOT] = instrument.lot_size
    row[INVERSE] = float(instrument.contract == "inverse")
    row[CONTRACT] = instrument.contract_size
    row[MAKER_FEE] = instrument.maker_fee
    row[TAKER_FEE] = instrument.taker_fee
    return row
