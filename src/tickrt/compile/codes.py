"""Every number that compiled code and Python share, once.

Kernels import these as plain ints, which Numba folds into the code; the enums that people read
(`errors.Code`, `strategy.state.Mode`, `execution.state_machine.OrderState`, …) take their values
from here, so the two cannot differ.
"""

from __future__ import annotations

from typing import Final

# Kinds of an event: the low byte of `ev`.
KIND_MASK: Final = 0xFF
DEPTH: Final = 1  # a level's new quantity; 0 deletes it
TRADE: Final = 2  # BUY: the aggressor bought
CLEAR: Final = 3  # drop a side's levels up to `px` (BUY: at and above, SELL: at and below); 0: all
SNAPSHOT: Final = 4  # a level of a snapshot; like DEPTH
BBO: Final = 5  # best bid or ask only; the book ignores it

# Flags of an event.
EXCH: Final = 1 << 31  # the exchange's side of a backtest reads it
LOCAL: Final = 1 << 30  # we read it
BUY: Final = 1 << 29
SELL: Final = 1 << 28
BATCH_END: Final = 1 << 27  # ours: the last event of a message

# What a kernel returns (`errors.Code`): zero and more is good news.
OK: Final = 0
PENDING: Final = 1
IDLE: Final = 2  # an engine to which nothing was submitted for this batch
BOOK_CROSSED: Final = -1
BOOK_FAR_FULL: Final = -2
BOOK_BAD_EVENT: Final = -3
ENGINE_FAILED: Final = -10
ENGINE_TIMEOUT: Final = -11
ENGINE_STALE: Final = -12
ENGINE_NOT_FINITE: Final = -13
RING_FULL: Final = -20
RING_OVERRUN: Final = -21
ORDERS_FULL: Final = -30
BAD_TRANSITION: Final = -31
COLUMN_NOT_FINITE: Final = -40
VENUE_FAILED: Final = -50

# Modes of a strategy (`strategy.state.Mode`).
MODE_LIVE: Final = 0
MODE_FALLBACK: Final = 1
MODE_SHADOW: Final = 2
MODE_HALTED: Final = 3

# Policies (`strategy.state.Policy`).
POLICY_TAKER: Final = 0
POLICY_MAKER: Final = 1

# Kinds of an intent, and how long an order stands.
NEW: Final = 1
CANCEL: Final = 2
GTC: Final = 1  # rests until it is cancelled
GTX: Final = 2  # post-only: refused if it would take
IOC: Final = 3  # takes what it can now, the rest expires

# States of an order (`execution.state_machine.OrderState`); 1…3 are live.
ORDER_FREE: Final = 0
PENDING_NEW: Final = 1
WORKING: Final = 2
PENDING_CANCEL: Final = 3
FILLED: Final = 4
CANCELLED: Final = 5
REJECTED: Final = 6
EXPIRED: Final = 7

# What happens to an order (`execution.state_machine.OrderEvent`).
SENT: Final = 0
ACK: Final = 1
PARTIAL_FILL: Final = 2
FILL: Final = 3
CANCEL_SENT: Final = 4
CANCEL_ACK: Final = 5
CANCEL_REJECT: Final = 6
REJECT: Final = 7
EXPIRE: Final = 8

# Why an intent did not become an order (`risk.limits.RiskReason`).
REASON_PASS: Final = 0
REASON_INSTRUMENT: Final = 1
REASON_STALE_DATA: Final = 2
REASON_NOT_FINITE: Final = 3
REASON_CONFIDENCE: Final = 4
REASON_SIZE: Final = 5
REASON_NOTIONAL: Final = 6
REASON_PRICE_COLLAR: Final = 7
REASON_POSITION: Final = 8
REASON_LOSS_LIMIT: Final = 9
REASON_DUPLICATE: Final = 10
REASON_MESSAGE_RATE: Final = 11
REASON_THROTTLE: Final = 12
REASON_HALTED: Final = 13

# Columns of the row of numbers that kernels know an instrument by (`Instrument.row`).
TICK: Final = 0
LOT: Final = 1
INVERSE: Final = 2
CONTRACT: Final = 3
MAKER_FEE: Final = 4
TAKER_FEE: Final = 5
INSTRUMENT_COLUMNS: Final = 8
