"""The one event format and the words for its flags.

`EVENT_DTYPE` is the 64-byte structured dtype of hftbacktest (its ``types.py``), so files made by
its converters work unchanged. Fields: ``ev`` flags and kind; ``exch_ts``, ``local_ts`` in ns;
``px`` price; ``qty`` quantity; ``order_id``; ``ival`` here the symbol's index in a session;
``fval`` unused.

`BATCH_END` is ours: a flag on the last event of each message. hftbacktest compares only its own
flag bits, so files that carry ours still load there; others are marked when they are loaded.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "BATCH_END",
    "BBO",
    "BUY",
    "CLEAR",
    "DEPTH",
    "EVENT_DTYPE",
    "EXCH",
    "KIND_MASK",
    "LOCAL",
    "SELL",
    "SNAPSHOT",
    "TRADE",
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

# Kinds: the low byte of `ev`.
KIND_MASK = 0xFF
DEPTH = 1  # a level's new quantity; 0 deletes it
TRADE = 2  # BUY: the aggressor bought
CLEAR = 3  # drop a side's levels up to `px` (BUY: at and above, SELL: at and below); 0, NaN: all
SNAPSHOT = 4  # a level of a snapshot; like DEPTH
BBO = 5  # best bid or ask only; the book ignores it

# Flags.
EXCH = 1 << 31  # the exchange's side of a backtest reads it
LOCAL = 1 << 30  # we read it
BUY = 1 << 29
SELL = 1 << 28
BATCH_END = 1 << 27
