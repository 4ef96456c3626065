"""Every order state with every event."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tickrt.errors import Code
from tickrt.execution.orders import new_orders
from tickrt.execution.state_machine import (
    TABLE,
    TERMINAL,
    OrderEvent,
    OrderState,
    transition,
)

S, E = OrderState, OrderEvent
GOOD = {
    (S.FREE, E.SENT): S.PENDING_NEW,
    (S.PENDING_NEW, E.ACK): S.WORKING,
    (S.PENDING_NEW, E.PARTIAL_FILL): S.WORKING,
    (S.PENDING_NEW, E.FILL): S.FILLED,
    (S.PENDING_NEW, E.CANCEL_SENT): S.PENDING_CANCEL,
    (S.PENDING_NEW, E.CANCEL_ACK): S.CANCELLED,
    (S.PENDING_NEW, E.REJECT): S.REJECTED,
    (S.PENDING_NEW, E.EXPIRE): S.EXPIRED,
    (S.WORKING, E.ACK): S.WORKING,
    (S.WORKING, E.PARTIAL_FILL): S.WORKING,
    (S.WORKING, E.FILL): S.FILLED,
    (S.WORKING, E.CANCEL_SENT): S.PENDING_CANCEL,
    (S.WORKING, E.CANCEL_ACK): S.CANCELLED,
    (S.WORKING, E.EXPIRE): S.EXPIRED,
    (S.PENDING_CANCEL, E.ACK): S.PENDING_CANCEL,
    (S.PENDING_CANCEL, E.PARTIAL_FILL): S.PENDING_CANCEL,
    (S.PENDING_CANCEL, E.FILL): S.FILLED,
    (S.PENDING_CANCEL, E.CANCEL_ACK): S.CANCELLED,
    (S.PENDING_CANCEL, E.CANCEL_REJECT): S.WORKING,
    (S.PENDING_CANCEL, E.REJECT): S.REJECTED,
    (S.PENDING_CANCEL, E.EXPIRE): S.EXPIRED,
    (S.FILLED, E.ACK): S.FILLED,
    (S.FILLED, E.CANCEL_REJECT): S.FILLED,
    (S.CANCELLED, E.ACK): S.CANCELLED,
    (S.CANCELLED, E.CANCEL_REJECT): S.CANCELLED,
    (S.REJECTED, E.CANCEL_REJECT): S.REJECTED,
    (S.EXPIRED, E.ACK): S.EXPIRED,
    (S.EXPIRED, E.CANCEL_REJECT): S.EXPIRED,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_state_with_every_event(state: OrderState, event: OrderEvent) -> None:
    assert transition(state, event) == GOOD.get((state, event), Code.BAD_TRANSITION)


def test_the_table_covers_everything_and_cannot_be_changed() -> None:
    assert TABLE.shape == (len(S), len(E))
    with pytest.raises(ValueError, match="read-only"):
        TABLE[0, 0] = 3


def test_an_ended_order_stays_ended() -> None:
    for state, event in itertools.product(TERMINAL, E):
        assert transition(state, event) in (state, Code.BAD_TRANSITION)


def test_compiled_code_reads_the_same_table() -> None:
    assert np.array_equal(new_orders(2).table, TABLE)
