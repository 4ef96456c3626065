"""Any sequence of intents and reports: the orders' sums and the account stay true."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some

from helpers.desk import desk, intent
from tickrt.compile.codes import CANCEL
from tickrt.execution.kernels import on_report
from tickrt.execution.state_machine import OrderEvent, OrderState, transition

E, S = OrderEvent, OrderState
LIVE = (S.PENDING_NEW, S.WORKING, S.PENDING_CANCEL)

orders = some.tuples(some.just("new"), some.sampled_from([1, -1]), some.integers(1, 5))
cancels = some.tuples(some.just("cancel"), some.integers(1, 12), some.just(0))
reports = some.tuples(
    some.sampled_from([e.name for e in E if e not in (E.SENT, E.CANCEL_SENT)]),
    some.integers(1, 12),
    some.integers(1, 6),
)


@settings(max_examples=150, deadline=None)
@given(some.lists(some.one_of(orders, cancels, reports), max_size=40))
def test_sums_and_account_hold_after_any_history(history: list[tuple[str, int, int]]) -> None:
    made = desk()
    model: dict[int, list[int]] = {}  # id → side, quantity, filled, state
    position, cash = 0, 0.0
    for what, number, lots in history:
        if what == "new":
            order_id = len(model) + 1
            model[order_id] = [number, lots, 0, S.PENDING_NEW]
            assert made.send(intent(order_id, side=number, qty=lots)) == [0]
            continue
        order = model.get(number)
        if what == "cancel":
            after = transition(OrderState(order[3]), E.CANCEL_SENT) if order else -1
            assert (made.send(intent(number, kind=CANCEL))[0] >= 0) == (after >= 0)
        else:
            event = E[what]
            code = on_report(made.orders, made.st, 0, number, int(event), 1000, lots, 1)
            if order is None:
                assert code < 0
                continue
            if event in (E.PARTIAL_FILL, E.FILL):
                leaves = order[1] - order[2]
                event = E.FILL if lots >= leaves else E.PARTIAL_FILL
                position += order[0] * lots
                cash -= order[0] * lots * 500.0
                order[2] += min(lots, leaves)
                assert (code < 0) == (lots > leaves or transition(S(order[3]), event) < 0)
            after = transition(S(order[3]), event)
        if order and after >= 0:
            order[3] = after
    live = [order for order in model.values() if order[3] in LIVE]
    assert made.orders.live[0] == len(live)
    for column, side in enumerate((1, -1)):
        open_lots = sum(order[1] - order[2] for order in live if order[0] == side)
        assert made.orders.open_lots[0, column] == open_lots
    assert made.st.position[0] == position
    assert made.st.cash[0] == cash
