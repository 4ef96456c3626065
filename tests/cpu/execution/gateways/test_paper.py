"""The paper gateway on a small book: bid 1000 (5) 999 (3), ask 1002 (4) 1003 (2) 1006 (50)."""

from __future__ import annotations

from helpers.desk import intent
from helpers.door import Door, on_batch
from tickrt.compile.codes import BUY, CANCEL, GTC, GTX, IOC, RING_FULL, SELL
from tickrt.execution.gateways.gateway import CAPACITY
from tickrt.execution.kernels import open_exposure
from tickrt.execution.state_machine import OrderEvent, OrderState

S, E = OrderState, OrderEvent


def test_an_ioc_takes_the_levels_within_its_limit_and_the_rest_expires() -> None:
    made = Door()
    assert made.submit(px=1003, qty=9, tif=IOC) == [(1002, 4, 0), (1003, 2, 0)]
    assert made.state() == S.EXPIRED
    assert made.desk.st.position[0] == 6
    assert made.desk.st.cash[0] == -(4 * 501 + 2 * 501.5)
    assert open_exposure(made.desk.orders, 0) == (0, 0)


def test_an_ioc_away_from_the_market_expires() -> None:
    made = Door()
    assert made.submit(px=1001, qty=1, tif=IOC) == []
    assert made.state() == S.EXPIRED


def test_a_sell_takes_the_bids() -> None:
    made = Door()
    assert made.submit(side=-1, px=999, qty=6, tif=IOC) == [(1000, 5, 0), (999, 1, 0)]
    assert made.state() == S.FILLED
    assert made.desk.st.position[0] == -6


def test_a_post_only_order_that_would_take_is_refused() -> None:
    made = Door()
    assert made.submit(px=1002, tif=GTX) == []
    assert made.state() == S.REJECTED
    assert made.submit(order_id=2, px=1001, tif=GTX) == []
    assert made.state(1) == S.WORKING


def test_a_limit_order_takes_what_it_can_and_rests() -> None:
    made = Door()
    assert made.submit(px=1002, qty=6, tif=GTC) == [(1002, 4, 0)]
    assert made.state() == S.WORKING
    assert open_exposure(made.desk.orders, 0) == (2, 0)


def test_a_resting_order_waits_for_the_queue_before_it() -> None:
    made = Door()
    made.submit(px=1000, qty=2, tif=GTX)  # behind 5
    assert made.trade(1000, 4.0, SELL) == []
    assert made.trade(1000, 2.0, SELL) == [(1000, 1, 1)]
    assert made.trade(1000, 9.0, SELL) == [(1000, 1, 1)]
    assert made.state() == S.FILLED


def test_trades_of_the_other_side_or_away_do_nothing() -> None:
    made = Door()
    made.submit(px=1000, qty=2, tif=GTX)
    assert made.trade(1002, 50.0, BUY) == []
    assert made.trade(1000, 50.0, BUY) == []
    assert made.trade(1001, 50.0, SELL) == []


def test_a_trade_beyond_its_price_fills_it() -> None:
    made = Door()
    made.submit(px=1000, qty=2, tif=GTX)
    assert made.trade(999, 1.0, SELL) == [(1000, 2, 1)]


def test_the_displayed_quantity_bounds_the_queue() -> None:
    made = Door()
    made.submit(px=1000, qty=2, tif=GTX)
    made.desk.level(BUY, 1000, 1.0)
    assert made.batch() == []
    assert made.trade(1000, 2.0, SELL) == [(1000, 1, 1)]


def test_a_book_that_crosses_a_resting_order_fills_it() -> None:
    made = Door()
    made.submit(side=-1, px=1002, qty=2, tif=GTX)
    made.desk.level(SELL, 1002, 0.0)
    made.desk.level(BUY, 1002, 1.0)
    assert made.batch() == [(1002, 2, 1)]
    assert made.desk.st.position[0] == -2


def test_a_cancel_is_answered_at_once() -> None:
    made = Door()
    made.submit(px=1000, tif=GTX)
    assert made.submit(px=1000, kind=CANCEL) == []
    assert made.state() == S.CANCELLED
    assert made.trade(999, 1.0, SELL) == []


def test_every_thing_that_happens_to_an_order_is_a_report() -> None:
    made = Door()
    made.submit(px=1002, qty=6, tif=GTC)
    assert made.reports == [E.PARTIAL_FILL, E.ACK]
    made.submit(order_id=2, px=1003, tif=GTX)
    assert made.reports == [E.PARTIAL_FILL, E.REJECT]  # the book crosses what rests at 1002
    made.submit(order_id=3, px=1001, qty=1, tif=IOC)
    assert made.reports == [E.EXPIRE]
    made.submit(order_id=4, px=999, tif=GTC)
    made.submit(order_id=4, kind=CANCEL)
    assert made.reports == [E.CANCEL_ACK]


def test_a_cancel_that_comes_too_late_is_refused() -> None:
    made = Door()
    made.submit(px=1000, qty=2, tif=GTX)
    cancel = intent(kind=CANCEL)
    made.desk.send(cancel)
    made.gateway.orders.publish(cancel)
    assert made.trade(999, 1.0, SELL) == [(1000, 2, 1)]  # the batch's trade comes first
    assert made.reports == [E.PARTIAL_FILL, E.CANCEL_REJECT]
    assert made.state() == S.FILLED


def test_a_report_queue_without_room_is_an_error_not_a_lost_report() -> None:
    made = Door()
    made.gateway.state.reports.events[:] = 0
    for i in range(CAPACITY):
        refused = intent(order_id=i + 1, px=1003, tif=GTX)
        made.gateway.orders.publish(refused)
    assert on_batch(made.gateway.handle(), 0, 0, 1) == 0
    made.gateway.orders.publish(intent(order_id=CAPACITY + 1, px=1003, tif=GTX))
    assert on_batch(made.gateway.handle(), 0, 0, 1) == RING_FULL
    assert "report queue was full" in made.gateway.error()
