"""The fixed-size records, 64 bytes each, that threads and processes hand to each other.

`EVENT_DTYPE` is the one event format: the structured dtype of hftbacktest (its ``types.py``), so
files made by its converters work unchanged. Fields: ``ev`` flags and kind (`codes`);
``exch_ts``, ``local_ts`` in ns; ``px`` price; ``qty`` quantity; ``order_id``; ``ival`` here the
symbol's index in a session; ``fval`` unused. The flag `BATCH_END` is ours; hftbacktest compares
only its own flag bits, so files that carry it still load there; others are marked when loaded.

`INTENT_DTYPE` is what a policy wants: a new order or a cancel. `reason` is written by
the risk checks (0 = passed). `FILL_DTYPE` is one execution of one of our orders.

Invariants: no padding that is not a field, so two runs can be compared byte for byte; every price
is in ticks, every order quantity in lots; `side` is +1 for buy and −1 for sell.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "EVENT_DTYPE",
    "FILL_DTYPE",
    "INTENT_DTYPE",
    "MAX_INTENTS",
]

EVENT_DTYPE = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)

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

MAX_INTENTS = 8  # that one decision may write
