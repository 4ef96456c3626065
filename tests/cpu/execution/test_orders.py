"""The orders table and the accounts: what we sent, what came back, what it did to the money."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.desk import INVERSE, Desk, desk, intent
from tickrt.compile.codes import CANCEL
from tickrt.compile.codes import ORDER_SLOTS as SLOTS
from tickrt.errors import Code, ConfigError
from tickrt.execution.kernels import on_report, on_sent, open_exposure
from tickrt.execution.orders import new_orders
from tickrt.execution.state_machine import OrderEvent, OrderState

E, S = OrderEvent, OrderState


def report(
    made: Desk, order_id: int, event: OrderEvent, px: int = 0, qty: int = 0, maker: int = 0
) -> int:
    return int(on_report(made.orders, made.st, 0, order_id, int(event), px, qty, maker))


def state(made: Desk, order_id: int) -> OrderState:
    return OrderState(int(made.orders.state[0, made.orders.order_id[0] == order_id][0]))


def test_an_order_is_open_until_it_is_filled() -> None:
    made = desk()
    assert made.send(intent(7, side=1, qty=5)) == [0]
    assert open_exposure(made.orders, 0) == (5, 0)
    assert report(made, 7, E.ACK) == 0
    assert report(made, 7, E.PARTIAL_FILL, 1000, 2, 1) == 0
    assert (state(made, 7), open_exposure(made.orders, 0)) == (S.WORKING, (3, 0))
    assert report(made, 7, E.PARTIAL_FILL, 999, 3) == 0  # the lots say that it was the last
    assert (state(made, 7), open_exposure(made.orders, 0)) == (S.FILLED, (0, 0))
    assert made.orders.live[0] == 0
    assert made.st.position[0] == 5


def test_linear_account() -> None:
    made = desk()  # tick 0.5, maker rebate 1 bp, taker fee 4 bp
    made.send(intent(1, side=1, qty=4))
    report(made, 1, E.FILL, 1000, 4, 1)
    made.send(intent(2, side=-1, qty=3))
    report(made, 2, E.FILL, 1010, 3, 0)
    assert made.st.position[0] == 1
    assert made.st.cash[0] == pytest.approx(-4 * 500 + 3 * 505)
    assert made.st.fees[0] == pytest.approx(-0.0001 * 2000 + 0.0004 * 1515)
    assert made.st.turnover[0] == pytest.approx(2000 + 1515)
    assert made.st.fills[0] == 2


def test_inverse_account_is_in_coin() -> None:
    made = desk(instrument=INVERSE)
    made.send(intent(1, side=1, qty=10, px=500_000))
    report(made, 1, E.FILL, 500_000, 10, 0)
    made.send(intent(2, side=-1, qty=10, px=625_000))
    report(made, 2, E.FILL, 625_000, 10, 1)
    assert made.st.position[0] == 0
    assert made.st.cash[0] == pytest.approx(1000 / 50_000 - 1000 / 62_500)
    fees = INVERSE.taker_fee * 1000 / 50_000 + INVERSE.maker_fee * 1000 / 62_500
    assert made.st.fees[0] == pytest.approx(fees)


def test_a_cancel_needs_its_order() -> None:
    made = desk()
    assert made.send(intent(3, kind=CANCEL)) == [Code.BAD_TRANSITION]
    made.send(intent(3))
    assert made.send(intent(3, kind=CANCEL)) == [0]
    assert state(made, 3) == S.PENDING_CANCEL
    assert open_exposure(made.orders, 0) == (2, 0)  # it may still fill
    assert made.send(intent(3, kind=CANCEL)) == [Code.BAD_TRANSITION]
    assert report(made, 3, E.CANCEL_ACK) == 0
    assert open_exposure(made.orders, 0) == (0, 0)


def test_a_fill_that_cannot_be_still_reaches_the_account() -> None:
    made = desk()
    made.send(intent(1, qty=2))
    report(made, 1, E.CANCEL_ACK)
    assert report(made, 1, E.FILL, 1000, 2, 1) == Code.BAD_TRANSITION
    assert made.st.position[0] == 2
    made.send(intent(2, qty=2))
    assert report(made, 2, E.FILL, 1000, 5, 1) == Code.BAD_TRANSITION  # more than was ordered
    assert made.st.position[0] == 7
    assert open_exposure(made.orders, 0) == (0, 0)
    assert made.orders.live[0] == 0


def test_unknown_orders_and_used_ids_are_refused() -> None:
    made = desk()
    assert report(made, 5, E.ACK) == Code.BAD_TRANSITION
    made.send(intent(5))
    assert made.send(intent(5)) == [Code.BAD_TRANSITION]


def test_a_full_table_refuses_and_ended_orders_make_room() -> None:
    made = desk()
    for i in range(SLOTS):
        assert made.send(intent(i + 1)) == [0]
    assert made.send(intent(1000)) == [Code.ORDERS_FULL]
    assert open_exposure(made.orders, 0) == (2 * SLOTS, 0)
    report(made, 10, E.REJECT)
    assert made.send(intent(1000)) == [0]
    assert made.orders.live[0] == SLOTS
    assert report(made, 10, E.CANCEL_REJECT) == Code.BAD_TRANSITION  # its slot was taken


def test_slots_of_ended_orders_are_reused_oldest_first() -> None:
    made = desk()
    for i in range(3 * SLOTS):
        assert made.send(intent(i + 1)) == [0]
        assert report(made, i + 1, E.EXPIRE) == 0
        assert report(made, max(1, i - SLOTS + 2), E.ACK) == 0  # late, and still found
    assert made.orders.sent[0] == 3 * SLOTS


def test_strategies_have_orders_of_their_own() -> None:
    orders = new_orders(2)
    both = np.concatenate([intent(1), intent(1)])
    assert on_sent(orders, 0, both, 0) == 0
    assert on_sent(orders, 1, both, 1) == 0
    assert list(orders.live) == [1, 1]
    with pytest.raises(ConfigError, match="at least one"):
        new_orders(0)
