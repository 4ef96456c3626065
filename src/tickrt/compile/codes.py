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

ORDER_SLOTS: Final = 64  # orders that one strategy may have live

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

# Kinds of a record (`memory.records`): the field `record`.
RECORD_ROW: Final = 1
RECORD_SIGNAL: Final = 2
RECORD_INTENT: Final = 3
RECORD_ORDER: Final = 4
RECORD_REPORT: Final = 5
RECORD_FILL: Final = 6
RECORD_MODE: Final = 7
RECORD_CLOCK: Final = 8
RECORD_KINDS: Final = 9  # one more than the largest

# Columns of a gateway's handle (`execution.gateways.gateway`).
GATEWAY_SUBMIT: Final = 0
GATEWAY_READ_REPORTS: Final = 1
GATEWAY_ON_BATCH: Final = 2
GATEWAY_CTX: Final = 3
GATEWAY_COLUMNS: Final = 4

# Columns of an engine's handle (`runtime.backends.handle`).
ENGINE_SUBMIT: Final = 0
ENGINE_POLL: Final = 1
ENGINE_ADVANCE: Final = 2
ENGINE_RESET: Final = 3
ENGINE_CTX: Final = 4
ENGINE_INPUT: Final = 5
ENGINE_OUTPUT: Final = 6
ENGINE_STAMP: Final = 7
ENGINE_N_OUTPUTS: Final = 8
ENGINE_MAX_BATCH: Final = 9
ENGINE_COLUMNS: Final = 10
ENGINE_ROWS: Final = 2  # rows of the table that one engine has: the one in use and a spare

# A message of an engine host's mailbox (`host.mailbox`), as byte offsets, and its flags.
MAIL_STAMP: Final = 0  # number of the message, written last
MAIL_FLAGS: Final = 8
MAIL_SEQ: Final = 16  # number of the row
MAIL_COUNT: Final = 24  # rows of the batch
MAIL_HEAD: Final = 32  # for kernels that watch the rows: number (30 bits, the rest), flags, 0
MAIL_ROWS: Final = 64  # float32
MAIL_ANSWER: Final = 1  # an answer is wanted
MAIL_RESET: Final = 2  # before this row: forget every state

# A row of a message that holds rows of many streams (`host.batch`), and its reply slots.
BATCH_MEMBER: Final = 0  # whose row it is: 0, 1 …
BATCH_SEQ: Final = 8
BATCH_FLAGS: Final = 16  # MAIL_ANSWER, MAIL_RESET
BATCH_VALUES: Final = 32  # float32
BATCH_REPLIES: Final = 16  # slots that each stream has, a power of two

# A reply of the mailbox.
REPLY_STAMP: Final = 0  # number of the row that it was made from, written last
REPLY_ERROR: Final = 8  # 0: there is none
REPLY_VALUES: Final = 16  # float32
# A kernel that watches the rows writes its values in pieces of sixteen bytes: three outputs and
# the low 30 bits of the row's number, with this bit where it has no answer.
PIECE_OUTPUTS: Final = 3
ANSWER_REFUSED: Final = 0x40000000
EMPTY_WORD: Final = 0xFFFFFFFF  # a NaN that no row has: the word is not there yet
OTHER_NAN: Final = 0x7FC00000  # what a row has in its place

# What makes a signal of an engine's outputs.
HEAD_PROBABILITIES: Final = 0  # (down, flat, up)

# Stages of a tick, a latency histogram each (`runtime.loop.state.STAGES`).
STAGE_TICK_TO_ORDER: Final = 0  # event readable → order readable by the gateway
STAGE_BOOK: Final = 1  # first event taken → all that a row sees is in the book
STAGE_FEATURES: Final = 2
STAGE_ENGINE: Final = 3
STAGE_DECISION: Final = 4  # signal → intents through risk, published
STAGE_TICK_TO_DECISION: Final = 5  # event readable → decision made, order or not
STAGE_QUEUED: Final = 6  # event readable → loop takes it
STAGE_ADVANCE: Final = 7  # off-path work after the order
STAGE_WAIT: Final = 8  # part of `queued`: the loop was still preparing the engines' states

# Columns of `Loop.counters` (`runtime.loop.state.COUNTERS`).
COUNT_CURSOR: Final = 0  # events of the feed that were consumed
COUNT_EVENTS: Final = 1  # applied
COUNT_BATCHES: Final = 2
COUNT_ROWS: Final = 3
COUNT_SIGNALS: Final = 4  # engine results that were used
COUNT_INTENTS: Final = 5  # that strategies wanted
COUNT_ORDERS: Final = 6  # new orders that passed risk
COUNT_CANCELS: Final = 7  # that passed risk
COUNT_FILLS: Final = 8
COUNT_FAULTS: Final = 9  # engine results that were missing, late, stale or not finite
COUNT_FALLBACKS: Final = 10  # decisions on the rule-based signal
COUNT_ERROR: Final = 11  # Code that stopped the loop
COUNT_ERROR_EVENT: Final = 12  # number of the event that did
COUNT_ERROR_SYMBOL: Final = 13
COUNT_OPEN: Final = 14  # 1: a batch has begun and is not complete
COUNT_STARTED: Final = 15  # clock when the open batch's first event was taken
COUNT_LAST_TS: Final = 16  # local time of the newest event, ns
COUNT_ADVANCED: Final = 17  # clock when the last off-path work ended
COUNT_WAITED: Final = 18  # batches that came before it had ended
COUNT_CLOCK_NS: Final = 19  # market time of the last clock record
COUNT_STAGE_ENDED: Final = 20  # clock when the last stage of the step at hand ended
