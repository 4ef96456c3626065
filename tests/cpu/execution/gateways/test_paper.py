"""The paper gateway on a small book: bid 1000 (5) 999 (3), ask 1002 (4) 1003 (2) 1006 (50)."""

from __future__ import annotations

from typing import Any

from helpers.desk import Desk, desk, intent
from tickrt.compile.codes import BUY, CANCEL, GTC, GTX, IOC, SELL
from tickrt.execution.gateways.paper_kernels import paper_on_book, paper_on_trade, paper_submit
from tickrt.execution.kernels import open_exposure
from tickrt.execution.state_machine import OrderState

S = OrderState


def submit(made: Desk, **wanted: Any) -> list[tuple[int, int, int]]:
    """(price, lots, maker) of the fills that an order meets at once."""
    order = intent(**wanted)
    assert made.send(order) == [0]
    n = paper_submit(made.orders, made.st, 0, order, 0, made.book, 0, made.now, made.fills, 0)
    return shown(made, n)


def trade(made: Desk, px: int, qty: float, side: int) -> list[tuple[int, int, int]]:
    n = paper_on_trade(
        made.orders, made.st, 0, px, qty, side, 2002, made.now, made.fills, 0
    )  # fmt: skip
    return shown(made, n)


def settle(made: Desk) -> list[tuple[int, int, int]]:
    n = paper_on_book(made.orders, made.st, 0, made.book, 0, made.now, made.fills, 0)
    return shown(made, n)


def shown(made: Desk, n: int) -> list[tuple[int, int, int]]:
    fills = made.fills[:n]
    return [(int(f["px_tick"]), int(f["qty_lots"]), int(f["maker"])) for f in fills]


def state(made: Desk, slot: int = 0) -> OrderState:
    return OrderState(int(made.orders.state[0, slot]))


def test_an_ioc_takes_the_levels_within_its_limit_and_the_rest_expires() -> None:
    made = desk()
    assert submit(made, px=1003, qty=9, tif=IOC) == [(1002, 4, 0), (1003, 2, 0)]
    assert state(made) == S.EXPIRED
    assert made.st.position[0] == 6
    assert made.st.cash[0] == -(4 * 501 + 2 * 501.5)
    assert open_exposure(made.orders, 0) == (0, 0)


def test_an_ioc_away_from_the_market_expires() -> None:
    made = desk()
    assert submit(made, px=1001, qty=1, tif=IOC) == []
    assert state(made) == S.EXPIRED


def test_a_sell_takes_the_bids() -> None:
    made = desk()
    assert submit(made, side=-1, px=999, qty=6, tif=IOC) == [(1000, 5, 0), (999, 1, 0)]
    assert state(made) == S.FILLED
    assert made.st.position[0] == -6


def test_a_fill_is_recorded_whole() -> None:
    made = desk()
    submit(made, order_id=9, px=1002, qty=2, tif=IOC)
    named = {name: made.fills[0][name].item() for name in made.fills.dtype.names}
    assert named == {
        "ts_ns": made.now, "order_id": 9, "px_tick": 1002, "qty_lots": 2, "position": 2,
        "fee": 0.0004 * 2 * 501, "mid2_tick": 2002, "strategy": 0, "symbol": 0, "side": 1,
        "maker": 0, "spare": 0,
    }  # fmt: skip


def test_a_post_only_order_that_would_take_is_refused() -> None:
    made = desk()
    assert submit(made, px=1002, tif=GTX) == []
    assert state(made) == S.REJECTED
    assert submit(made, order_id=2, px=1001, tif=GTX) == []
    assert state(made, 1) == S.WORKING


def test_a_limit_order_takes_what_it_can_and_rests() -> None:
    made = desk()
    assert submit(made, px=1002, qty=6, tif=GTC) == [(1002, 4, 0)]
    assert state(made) == S.WORKING
    assert open_exposure(made.orders, 0) == (2, 0)


def test_a_resting_order_waits_for_the_queue_before_it() -> None:
    made = desk()
    submit(made, px=1000, qty=2, tif=GTX)  # behind 5
    assert trade(made, 1000, 4.0, -1) == []
    assert trade(made, 1000, 2.0, -1) == [(1000, 1, 1)]
    assert trade(made, 1000, 9.0, -1) == [(1000, 1, 1)]
    assert state(made) == S.FILLED


def test_trades_of_the_other_side_or_away_do_nothing() -> None:
    made = desk()
    submit(made, px=1000, qty=2, tif=GTX)
    assert trade(made, 1002, 50.0, 1) == []
    assert trade(made, 1000, 50.0, 1) == []
    assert trade(made, 1001, 50.0, -1) == []


def test_a_trade_beyond_its_price_fills_it() -> None:
    made = desk()
    submit(made, px=1000, qty=2, tif=GTX)
    assert trade(made, 999, 1.0, -1) == [(1000, 2, 1)]


def test_the_displayed_quantity_bounds_the_queue() -> None:
    made = desk()
    submit(made, px=1000, qty=2, tif=GTX)
    made.level(BUY, 1000, 1.0)
    assert settle(made) == []
    assert trade(made, 1000, 2.0, -1) == [(1000, 1, 1)]


def test_a_book_that_crosses_a_resting_order_fills_it() -> None:
    made = desk()
    submit(made, side=-1, px=1002, qty=2, tif=GTX)
    made.level(SELL, 1002, 0.0)
    made.level(BUY, 1002, 1.0)
    assert settle(made) == [(1002, 2, 1)]
    assert made.st.position[0] == -2


def test_a_cancel_is_answered_at_once() -> None:
    made = desk()
    submit(made, px=1000, tif=GTX)
    assert submit(made, px=1000, kind=CANCEL) == []
    assert state(made) == S.CANCELLED
    assert trade(made, 999, 1.0, -1) == []


def test_more_fills_than_there_is_room_for_are_counted_and_booked() -> None:
    made = desk()
    made.fills = made.fills[:1]
    order = intent(px=1006, qty=20, tif=IOC)
    made.send(order)
    n = paper_submit(made.orders, made.st, 0, order, 0, made.book, 0, made.now, made.fills, 0)
    assert n == 3
    assert made.st.position[0] == 20
