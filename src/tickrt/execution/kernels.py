"""Orders and accounts: what we sent, what the venue reported, what that does to position and cash.

Entry points: `on_sent` (before an intent goes to the gateway; do not send if it is negative),
`on_report` (every report of the venue), `open_exposure`.

Invariants: a fill always reaches the account, even one that the state machine calls impossible (its
code is returned all the same); the sums `orders.open_lots` and `orders.live` hold after every call.

Accounts as hftbacktest's asset models: linear cash −= side · contract · qty · px; inverse cash +=
side · contract · qty / px, in the coin; fee = rate · contract · qty · px, or / px.
"""

from tickrt.compile.codes import (
    BAD_TRANSITION,
    CANCEL,
    CANCEL_SENT,
    CONTRACT,
    FILL,
    INVERSE,
    LOT,
    MAKER_FEE,
    OK,
    ORDERS_FULL,
    PARTIAL_FILL,
    PENDING_CANCEL,
    PENDING_NEW,
    TAKER_FEE,
    TICK,
)
from tickrt.compile.jit import kernel, kernel_internal


@kernel_internal
def find_order(orders, p, order_id):
    """The slot of an order, or −1."""
    for c in range(orders.order_id.shape[1]):
        if orders.order_id[p, c] == order_id:
            return c
    return -1


@kernel_internal
def free_slot(orders, p):
    """A slot without a live order, the longest unused first; −1 when all are live."""
    slots = orders.order_id.shape[1]
    for i in range(slots):
        c = (orders.cursor[p] + i) % slots
        if not PENDING_NEW <= orders.state[p, c] <= PENDING_CANCEL:
            orders.cursor[p] = (c + 1) % slots
            return c
    return -1


@kernel_internal
def change(orders, p, c, event):
    """Apply an event to the order in slot `c`; keeps the sums."""
    before = orders.state[p, c]
    after = orders.table[before, event]
    if after < 0:
        return BAD_TRANSITION
    orders.state[p, c] = after
    was_live = PENDING_NEW <= before <= PENDING_CANCEL
    if was_live and not PENDING_NEW <= after <= PENDING_CANCEL:
        side = 0 if orders.side[p, c] > 0 else 1
        orders.live[p] -= 1
        orders.open_lots[p, side] -= orders.qty_lots[p, c] - orders.filled[p, c]
    return OK


@kernel_internal
def apply_fill(st, p, side, px_tick, qty_lots, maker):
    """Book an execution: position, cash, fees, turnover. Returns its fee."""
    px = px_tick * st.instrument[p, TICK]
    amount = qty_lots * st.instrument[p, LOT] * st.instrument[p, CONTRACT]
    if st.instrument[p, INVERSE] != 0.0:
        amount /= px
        st.cash[p] += side * amount
    else:
        amount *= px
        st.cash[p] -= side * amount
    fee = amount * (st.instrument[p, MAKER_FEE] if maker else st.instrument[p, TAKER_FEE])
    st.fees[p] += fee
    st.turnover[p] += amount
    st.position[p] += side * qty_lots
    st.fills[p] += 1
    return fee


@kernel
def on_sent(orders, p, out, i):
    """Enter intent out[i], which is about to be sent. Negative: do not send it."""
    intent = out[i]
    order_id = int(intent["order_id"])
    c = -1
    if order_id <= orders.last_id[p]:  # a larger one than ever cannot be in the table
        c = find_order(orders, p, order_id)
    if int(intent["kind"]) == CANCEL:
        return BAD_TRANSITION if c < 0 else change(orders, p, c, CANCEL_SENT)
    if c >= 0:
        return BAD_TRANSITION
    c = free_slot(orders, p)
    if c < 0:
        return ORDERS_FULL
    side, lots = int(intent["side"]), int(intent["qty_lots"])
    orders.last_id[p] = max(orders.last_id[p], order_id)
    orders.order_id[p, c] = order_id
    orders.state[p, c] = PENDING_NEW
    orders.side[p, c] = side
    orders.px_tick[p, c] = int(intent["px_tick"])
    orders.qty_lots[p, c] = lots
    orders.filled[p, c] = 0
    orders.tif[p, c] = int(intent["tif"])
    orders.sent_ns[p, c] = int(intent["ts_ns"])
    orders.seq[p, c] = int(intent["seq"])
    orders.open_lots[p, 0 if side > 0 else 1] += lots
    orders.live[p] += 1
    orders.sent[p] += 1
    return OK


@kernel_internal
def on_fill(orders, st, p, c, px_tick, qty_lots, maker):
    """A fill of the order in slot `c`: the account first, then the order's state."""
    side = orders.side[p, c]
    apply_fill(st, p, side, px_tick, qty_lots, maker)
    leaves = orders.qty_lots[p, c] - orders.filled[p, c]
    counted = min(qty_lots, leaves)
    if PENDING_NEW <= orders.state[p, c] <= PENDING_CANCEL:
        orders.open_lots[p, 0 if side > 0 else 1] -= counted
    orders.filled[p, c] += counted
    code = change(orders, p, c, FILL if qty_lots >= leaves else PARTIAL_FILL)
    return BAD_TRANSITION if qty_lots > leaves else code


@kernel
def on_report(orders, st, p, order_id, event, px_tick, qty_lots, maker):
    """A report of the venue: updates the order, and with a fill position, cash and fees.

    `event` is an OrderEvent; for PARTIAL_FILL and FILL `px_tick`, `qty_lots` (of this execution)
    and `maker` count, and which of the two it is follows from the lots. Negative: the report cannot
    be.
    """
    c = find_order(orders, p, order_id)
    if c < 0:
        return BAD_TRANSITION
    return on_report_at(orders, st, p, c, event, px_tick, qty_lots, maker)


@kernel
def on_report_at(orders, st, p, c, event, px_tick, qty_lots, maker):
    """`on_report` for the order in slot `c`."""
    if event == PARTIAL_FILL or event == FILL:
        return on_fill(orders, st, p, c, px_tick, qty_lots, maker)
    return change(orders, p, c, event)


@kernel
def open_exposure(orders, p):
    """(buy_lots, sell_lots): the unfilled lots of the live orders."""
    return orders.open_lots[p, 0], orders.open_lots[p, 1]
