"""The life of an order, as one exhaustive table.

`transition(state, event)` is a pure function; compiled code reads the same table (`TABLE`). What a
venue may do out of order is allowed where it is harmless: a fill before the acknowledgement, an
acknowledgement or a refused cancel after the end. Everything else is BAD.

    FREE ──SENT──▶ PENDING_NEW ──ACK──▶ WORKING ──CANCEL_SENT──▶ PENDING_CANCEL
                        │                  │ ▲                        │
                        │            FILL  │ └─────CANCEL_REJECT──────┤
                        ▼                  ▼                          ▼
              REJECTED, EXPIRED          FILLED                   CANCELLED
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import Code

__all__ = ["TABLE", "TERMINAL", "OrderEvent", "OrderState", "transition"]


class OrderState(IntEnum):
    """Where an order is. 1…3 are live: the venue may still fill it."""

    FREE = codes.ORDER_FREE  # an unused slot
    PENDING_NEW = codes.PENDING_NEW  # sent, not answered
    WORKING = codes.WORKING  # the venue has it (also partly filled)
    PENDING_CANCEL = codes.PENDING_CANCEL  # a cancel is under way
    FILLED = codes.FILLED
    CANCELLED = codes.CANCELLED
    REJECTED = codes.REJECTED
    EXPIRED = codes.EXPIRED  # the rest of an IOC


class OrderEvent(IntEnum):
    """What happens to an order."""

    SENT = codes.SENT  # we sent it
    ACK = codes.ACK
    PARTIAL_FILL = codes.PARTIAL_FILL
    FILL = codes.FILL  # the last fill
    CANCEL_SENT = codes.CANCEL_SENT  # we sent a cancel
    CANCEL_ACK = codes.CANCEL_ACK  # it is cancelled, asked for or not
    CANCEL_REJECT = codes.CANCEL_REJECT
    REJECT = codes.REJECT
    EXPIRE = codes.EXPIRE


TERMINAL = frozenset(
    {OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED}
)

_F, _N, _W, _C = (
    OrderState.FREE,
    OrderState.PENDING_NEW,
    OrderState.WORKING,
    OrderState.PENDING_CANCEL,
)
_FILLED, _CANCELLED, _REJECTED, _EXPIRED = (
    OrderState.FILLED,
    OrderState.CANCELLED,
    OrderState.REJECTED,
    OrderState.EXPIRED,
)
_BAD = int(Code.BAD_TRANSITION)

# Rows: states. Columns: events in their order, SENT … EXPIRE.
_ROWS: dict[OrderState, tuple[int, ...]] = {
    _F: (_N, _BAD, _BAD, _BAD, _BAD, _BAD, _BAD, _BAD, _BAD),
    _N: (_BAD, _W, _W, _FILLED, _C, _CANCELLED, _BAD, _REJECTED, _EXPIRED),
    _W: (_BAD, _W, _W, _FILLED, _C, _CANCELLED, _BAD, _BAD, _EXPIRED),
    _C: (_BAD, _C, _C, _FILLED, _BAD, _CANCELLED, _W, _REJECTED, _EXPIRED),
    _FILLED: (_BAD, _FILLED, _BAD, _BAD, _BAD, _BAD, _FILLED, _BAD, _BAD),
    _CANCELLED: (_BAD, _CANCELLED, _BAD, _BAD, _BAD, _BAD, _CANCELLED, _BAD, _BAD),
    _REJECTED: (_BAD, _BAD, _BAD, _BAD, _BAD, _BAD, _REJECTED, _BAD, _BAD),
    _EXPIRED: (_BAD, _EXPIRED, _BAD, _BAD, _BAD, _BAD, _EXPIRED, _BAD, _BAD),
}

TABLE: NDArray[np.int64] = np.array([_ROWS[state] for state in OrderState], np.int64)
TABLE.setflags(write=False)


def transition(state: OrderState, event: OrderEvent) -> int:
    """The state after `event`, or `Code.BAD_TRANSITION` (negative) where it cannot happen."""
    return int(TABLE[state, event])
