"""What the policies want, given a signal, a book (bid 1000, ask 1002) and a position."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.desk import INVERSE, Desk, desk
from tickrt.compile.codes import BUY, CANCEL, GTX, IOC, NEW, SELL
from tickrt.execution.kernels import on_report
from tickrt.execution.state_machine import OrderEvent
from tickrt.memory.records import MAX_INTENTS
from tickrt.strategy.kernels import decide, equity, fallback_signal
from tickrt.strategy.params import FallbackParams, MakerParams, TakerParams
from tickrt.strategy.state import Mode

TAKER = TakerParams(enter_threshold=0.5, exit_threshold=0.2, qty_lots=2, max_position_lots=5)
MAKER = MakerParams(
    qty_lots=2,
    max_position_lots=4,
    half_spread_ticks=1.0,
    signal_skew_ticks=2.0,
    position_skew_ticks=2.0,
    requote_ticks=0,
    min_rest_ns=10,
)


@pytest.mark.parametrize(
    ("position", "signal", "lots"),
    [
        (0, 0.49, 0),
        (0, 0.5, 2),  # enters at the threshold
        (0, -0.5, -2),
        (4, 0.9, 1),  # only as much as the position may grow
        (5, 0.9, 0),
        (3, 0.0, 0),  # holds
        (3, -0.2, -3),  # leaves
        (-3, 0.2, 3),
        (3, -0.9, -5),  # reverses
        (-1, 0.9, 3),
    ],
)
def test_taker_trades_what_signal_and_position_ask_for(
    position: int, signal: float, lots: int
) -> None:
    made = desk(TAKER)
    made.st.position[0] = position
    intents = made.decide(signal)
    assert len(intents) == (lots != 0)
    if lots:
        (got,) = intents
        assert got["side"] * got["qty_lots"] == lots
        assert got["px_tick"] == (1002 if lots > 0 else 1000)
        assert (got["kind"], got["tif"]) == (NEW, IOC)


def test_taker_writes_every_field_of_its_intent() -> None:
    made = desk(TAKER, mode=Mode.SHADOW)
    made.out.view(np.uint8).fill(0xFF)
    (got,) = made.decide(0.75)
    named = {name: got[name].item() for name in got.dtype.names}
    assert named == {
        "seq": 1, "ts_ns": made.now, "order_id": 1, "px_tick": 1002, "qty_lots": 2, "signal": 0.75,
        "strategy": 0, "symbol": 0, "kind": NEW, "side": 1, "tif": IOC, "mode": int(Mode.SHADOW),
        "reason": 0, "record": 0, "mid2_tick": 2002,
    }  # fmt: skip


def test_taker_waits_for_its_order_and_its_cooldown() -> None:
    made = desk(TAKER)
    first = made.decide(0.9)
    made.send(first)
    made.now += TAKER.cooldown_ns
    assert len(made.decide(0.9)) == 0  # in flight
    on_report(made.orders, made.st, 0, 1, int(OrderEvent.EXPIRE), 0, 0, 0)
    made.now -= 1
    assert len(made.decide(0.9)) == 0  # too soon
    made.now += 1
    (second,) = made.decide(0.9)
    assert second["order_id"] == 2


def test_taker_enters_no_wide_market_but_leaves_one() -> None:
    made = desk(TakerParams(enter_threshold=0.5, max_spread_ticks=1, through_ticks=3))
    assert len(made.decide(0.9)) == 0
    made.st.position[0] = 1
    (got,) = made.decide(-0.9)
    assert (got["side"], got["px_tick"], got["qty_lots"]) == (-1, 997, 1)


def quotes(made: Desk, signal: float = 0.0) -> dict[str, list[int]]:
    """New quotes and cancelled prices of one decision, which is then entered."""
    intents = made.decide(signal)
    made.send(intents)
    kinds = {"buy": (NEW, 1), "sell": (NEW, -1), "cancel_buy": (CANCEL, 1)}
    kinds["cancel_sell"] = (CANCEL, -1)
    return {
        name: [int(i["px_tick"]) for i in intents if (i["kind"], i["side"]) == kind]
        for name, kind in kinds.items()
        if any((i["kind"], i["side"]) == kind for i in intents)
    }


@pytest.mark.parametrize(
    ("position", "signal", "buy", "sell"),
    [
        (0, 0.0, [1000], [1002]),
        (0, 0.5, [1001], [1003]),  # up one tick
        (0, -0.5, [999], [1001]),
        (2, 0.0, [999], [1001]),  # down one tick against the position
        (0, 1.0, [1001], [1004]),  # never crosses
        (4, 0.0, [], [1001]),  # full: quotes the other side only
        (-4, 0.0, [1001], []),
    ],
)
def test_maker_quotes_around_the_skewed_price(
    position: int, signal: float, buy: list[int], sell: list[int]
) -> None:
    made = desk(MAKER)
    made.st.position[0] = position
    got = made.decide(signal)
    assert all(got["tif"] == GTX)
    assert list(got["px_tick"][got["side"] == 1]) == buy
    assert list(got["px_tick"][got["side"] == -1]) == sell


def test_maker_keeps_quotes_that_stand_well_and_replaces_those_that_drift() -> None:
    made = desk(MAKER)
    assert quotes(made) == {"buy": [1000], "sell": [1002]}
    assert quotes(made) == {}
    made.level(BUY, 1001, 1.0)
    made.level(SELL, 1002, 0.0)  # now 1001 : 1003
    assert quotes(made) == {}  # too young
    made.now += 10
    assert quotes(made) == {
        "cancel_buy": [1000], "buy": [1001], "cancel_sell": [1002], "sell": [1003],
    }  # fmt: skip


def test_maker_replaces_no_more_than_it_may_hold() -> None:
    made = desk(MakerParams(qty_lots=4, max_position_lots=4, requote_ticks=0, min_rest_ns=0))
    quotes(made)
    made.level(BUY, 1001, 1.0)
    made.level(SELL, 1002, 0.0)
    assert quotes(made) == {"cancel_buy": [1000], "cancel_sell": [1002]}  # the old may still fill
    assert quotes(made) == {}
    for order_id in (1, 2):
        on_report(made.orders, made.st, 0, order_id, int(OrderEvent.CANCEL_ACK), 0, 0, 0)
    assert quotes(made) == {"buy": [1001], "sell": [1003]}


def test_maker_pulls_a_quote_that_has_become_too_large() -> None:
    made = desk(MAKER)
    quotes(made)
    made.st.position[0] = 3  # one more lot may be bought, two are quoted
    got = quotes(made)
    assert got["cancel_buy"] == [1000]
    assert "buy" not in got


@pytest.mark.parametrize("params", [TAKER, MAKER])
def test_a_decision_never_writes_more_than_it_may(params: TakerParams | MakerParams) -> None:
    made = desk(MakerParams(qty_lots=1, max_position_lots=60, requote_ticks=0, min_rest_ns=0))
    for tick in range(990, 1001):  # many live quotes at other prices
        made.out["order_id"], made.out["px_tick"], made.out["qty_lots"] = 5000 + tick, tick, 1
        made.out["kind"], made.out["side"] = NEW, 1
        made.send(made.out[:1])
    assert len(made.decide(-0.9)) == MAX_INTENTS


@pytest.mark.parametrize("cause", ["halted", "nan", "one-sided"])
def test_without_ground_to_trade_on_a_policy_only_cancels(cause: str) -> None:
    made = desk(MAKER, mode=Mode.LIVE)
    quotes(made)
    signal = 0.0
    if cause == "halted":
        made.st.mode[0] = Mode.HALTED
    elif cause == "nan":
        signal = math.nan
    else:
        for tick in (1002, 1003, 1006):
            made.level(SELL, tick, 0.0)
    n = decide(
        made.st, 0, made.book, 0, made.orders, np.array([0.0, 1.0, signal]), 1, made.now + 100,
        made.out,
    )  # fmt: skip
    assert list(made.out["kind"][:n]) == [CANCEL, CANCEL]
    made.send(made.out[:n])
    assert len(made.decide(signal)) == 0  # each is cancelled once


def test_fallback_follows_imbalance_and_microprice() -> None:
    made = desk(fallback=FallbackParams(0.5, 0.5))
    imbalance = (5 - 4) / 9  # with one level a side the microprice says the same
    found = np.zeros(3)
    fallback_signal(made.st, 0, made.book, 0, found)
    assert found == pytest.approx((0.0, 1 - imbalance, imbalance))
    made.level(BUY, 1000, 1.0)
    fallback_signal(made.st, 0, made.book, 0, found)
    assert found == pytest.approx((0.6, 0.4, 0.0))
    for tick in (1000, 999):
        made.level(BUY, tick, 0.0)
    fallback_signal(made.st, 0, made.book, 0, found)
    assert found.tolist() == [0.0, 1.0, 0.0]


def test_equity_of_linear_and_inverse_contracts() -> None:
    made = desk()
    made.st.position[0], made.st.cash[0], made.st.fees[0] = -3, 1500.0, 2.0
    assert equity(made.st, 0, 490.0) == pytest.approx(1500 - 3 * 490 - 2)
    coin = desk(instrument=INVERSE)
    coin.st.position[0], coin.st.cash[0] = 10, 10 * 100 / 50_000  # bought at 50,000
    assert equity(coin.st, 0, 50_000.0) == pytest.approx(0.0)
    assert equity(coin.st, 0, 62_500.0) == pytest.approx(10 * 100 * (1 / 50_000 - 1 / 62_500))
