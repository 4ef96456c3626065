"""The fixed-size records, 64 bytes each, that threads and processes hand to each other.

`EVENT_DTYPE` is the one event format: the structured dtype of hftbacktest (its ``types.py``), so
files made by its converters work unchanged. Fields: ``ev`` flags and kind (`codes`); ``exch_ts``,
``local_ts`` in ns; ``px`` price; ``qty`` quantity; ``order_id``; ``ival`` here the symbol's index
in a session; ``fval`` unused. The flag `BATCH_END` is ours; hftbacktest compares only its own flag
bits, so files that carry it still load there; others are marked when loaded.

The others are what a loop wrote down, one stream in the order in which it happened; `record` says
which kind one is (`codes.RECORD_*`, `DTYPES`). `INTENT_DTYPE` is also what the order queue carries
to a gateway, `REPORT_DTYPE` what comes back.

Invariants: every byte belongs to a field, so two runs can be compared byte for byte; `ts_ns`,
`strategy`, `symbol` and `record` lie at the same place in all but the event (`RECORD_DTYPE` reads
just these); prices are in ticks, order quantities in lots; `side` is +1 for buy and −1 for sell; a
`strategy` of −1 means none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes

__all__ = [
    "CLOCK_DTYPE",
    "DTYPES",
    "EVENT_DTYPE",
    "FILL_DTYPE",
    "INTENT_DTYPE",
    "MAX_INTENTS",
    "MODE_DTYPE",
    "NO_MID",
    "ORDER_DTYPE",
    "RECORD_DTYPE",
    "RECORD_NAMES",
    "REPORT_DTYPE",
    "ROW_DTYPE",
    "SIGNAL_DTYPE",
    "fill_mid2",
    "of_kind",
]

MAX_INTENTS = 8  # that one decision may write
NO_MID = -(1 << 31)  # `mid2_from_px` of a fill while the book had one side only

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
        ("record", "i2"),  # RECORD_INTENT in the stream, 0 elsewhere
        ("mid2_tick", "i8"),  # best bid + best ask in ticks when decided: twice the mid
    ],
    align=True,
)

ROW_DTYPE = np.dtype(
    [
        ("seq", "i8"),  # the row's number in its stream; negative: the Code of why there is none
        ("ts_ns", "i8"),  # local time of the batch
        ("exch_ts_ns", "i8"),  # the exchange's time of the batch
        ("event", "i8"),  # number of the batch's last event in the feed
        ("bid_tick", "i8"),  # best bid, NO_BID where there is none
        ("stream", "i4"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("spare", "i4"),
        ("spare_2", "i2"),
        ("record", "i2"),
        ("ask_tick", "i8"),  # best ask, NO_ASK where there is none
    ],
    align=True,
)

SIGNAL_DTYPE = np.dtype(
    [
        ("seq", "i8"),
        ("ts_ns", "i8"),
        ("mid2_tick", "i8"),  # best bid + best ask, 0 where a side is missing
        ("equity", "f8"),  # account currency
        ("position", "i8"),  # lots, before this decision
        ("p_down", "f4"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("p_flat", "f4"),
        ("code", "i2"),  # errors.Code of the engine's result
        ("record", "i2"),
        ("p_up", "f4"),
        ("mode", "i1"),
        ("intents", "i1"),  # how many it wanted
        ("engine", "i2"),  # row of the engine table
    ],
    align=True,
)

ORDER_DTYPE = np.dtype(
    [
        ("seq", "i8"),
        ("ts_ns", "i8"),
        ("order_id", "i8"),
        ("ready", "i8"),  # clock ticks when the batch became readable
        ("sent", "i8"),  # clock ticks when the gateway could read the order
        ("spare", "i4"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("kind", "i1"),
        ("side", "i1"),
        ("tif", "i1"),
        ("mode", "i1"),
        ("spare_2", "i2"),
        ("record", "i2"),
        ("px_tick", "i8"),
    ],
    align=True,
)

REPORT_DTYPE = np.dtype(
    [
        ("venue_ref", "i8"),  # the venue's own number of it, 0 where it has none
        ("ts_ns", "i8"),  # when we could know of it
        ("order_id", "i8"),
        ("px_tick", "i8"),  # of an execution
        ("qty_lots", "i8"),  # of this execution
        ("event", "i4"),  # OrderEvent
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("maker", "i1"),  # 1: our order was resting
        ("spare", "i1"),
        ("spare_2", "i2"),
        ("code", "i2"),  # Code of what the order table made of it
        ("record", "i2"),
        ("spare_3", "i8"),
    ],
    align=True,
)

FILL_DTYPE = np.dtype(
    [
        ("position", "i8"),  # lots held after this fill
        ("ts_ns", "i8"),
        ("order_id", "i8"),
        ("px_tick", "i8"),
        ("qty_lots", "i8"),
        ("mid2_from_px", "i4"),  # best bid + best ask − 2 · px when we learnt of it; or NO_MID
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("spare", "i4"),
        ("side", "i1"),  # +1 we bought, −1 we sold
        ("maker", "i1"),  # 1: our order was resting
        ("record", "i2"),
        ("fee", "f8"),  # in the account's currency; negative is a rebate
    ],
    align=True,
)

MODE_DTYPE = np.dtype(
    [
        ("seq", "i8"),  # the row that caused it
        ("ts_ns", "i8"),
        ("healthy", "i8"),  # healthy results in a row
        ("spare", "i8"),
        ("spare_2", "i8"),
        ("code", "i4"),  # errors.Code of the engine's result
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("before", "i1"),  # Mode
        ("after", "i1"),
        ("spare_3", "i2"),
        ("spare_4", "i2"),
        ("record", "i2"),
        ("spare_5", "i8"),
    ],
    align=True,
)

CLOCK_DTYPE = np.dtype(
    [
        ("event", "i8"),  # events read so far
        ("ts_ns", "i8"),  # local time of the market
        ("clock", "i8"),  # clock ticks of this machine at that moment
        ("spare", "i8"),
        ("spare_2", "i8"),
        ("spare_3", "i4"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("spare_4", "i4"),
        ("spare_5", "i2"),
        ("record", "i2"),
        ("spare_6", "i8"),
    ],
    align=True,
)

# What all records have in common; the other fields only fill the places between.
RECORD_DTYPE = np.dtype(
    [
        ("head", "i8"),
        ("ts_ns", "i8"),
        ("body", "i8"),
        ("body_2", "i8"),
        ("body_3", "i8"),
        ("body_4", "i4"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("body_5", "i4"),
        ("body_6", "i2"),
        ("record", "i2"),
        ("tail", "i8"),
    ],
    align=True,
)

DTYPES: dict[int, np.dtype[Any]] = {
    codes.RECORD_ROW: ROW_DTYPE,
    codes.RECORD_SIGNAL: SIGNAL_DTYPE,
    codes.RECORD_INTENT: INTENT_DTYPE,
    codes.RECORD_ORDER: ORDER_DTYPE,
    codes.RECORD_REPORT: REPORT_DTYPE,
    codes.RECORD_FILL: FILL_DTYPE,
    codes.RECORD_MODE: MODE_DTYPE,
    codes.RECORD_CLOCK: CLOCK_DTYPE,
}
RECORD_NAMES: dict[int, str] = {
    codes.RECORD_ROW: "row",
    codes.RECORD_SIGNAL: "signal",
    codes.RECORD_INTENT: "intent",
    codes.RECORD_ORDER: "order",
    codes.RECORD_REPORT: "report",
    codes.RECORD_FILL: "fill",
    codes.RECORD_MODE: "mode",
    codes.RECORD_CLOCK: "clock",
}


def of_kind(records: NDArray[np.void], kind: int) -> NDArray[np.void]:
    """The records of one kind, in order, as that kind's dtype.

    Args:
        records: `RECORD_DTYPE`[n] of the stream.
        kind: one of `DTYPES`.
    """
    found: NDArray[np.void] = records[records["record"] == kind].view(DTYPES[kind])
    return found


def fill_mid2(fills: NDArray[np.void]) -> NDArray[np.int64]:
    """int64[n]: best bid + best ask in ticks at each fill; 0 where a side was missing."""
    near = fills["mid2_from_px"].astype(np.int64)
    return np.where(near == NO_MID, 0, 2 * fills["px_tick"] + near)
