"""The paper gateway: answers our orders at once from our own book and the public trades.

Entry points, in the loop: `paper_submit` (each intent that was entered by `on_sent`),
`paper_on_trade` (each public trade), `paper_on_book` (each complete batch). Each takes and returns
the count of `fills`.

Model: no latency. A taking order fills against the displayed levels, best first, at their prices. A
resting order joins the end of its level's queue; trades at its price take the queue before it, and
the displayed quantity bounds what is before it; a trade or an opposite quote beyond its price fills
it.

Known limits: our orders leave no trace in the book (no impact), and several of our orders at one
price each see the whole trade. For queue models, latency and cancels that race fills there is
`backtest`.
"""

import math

from tickrt.compile.codes import (
    ACK,
    CANCEL,
    CANCEL_ACK,
    EXPIRE,
    GTX,
    IOC,
    LOT,
    PENDING_CANCEL,
    REJECT,
    WORKING,
)
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.execution.kernels import change, find_order, on_fill, record_fill
from tickrt.market.kernels import NO_ASK, NO_BID, best, top_levels


@kernel_internal
def paper_fill(orders, st, p, c, px_tick, lots, maker, ts_ns, mid2, fills, n_fills):
    """Fill `lots` of the order in slot `c` and record it."""
    fees = st.fees[p]
    on_fill(orders, st, p, c, px_tick, lots, maker)
    order_id, side = orders.order_id[p, c], orders.side[p, c]
    fee = st.fees[p] - fees
    return record_fill(
        st, p, fills, n_fills, ts_ns, order_id, side, px_tick, lots, maker, fee, mid2
    )


@kernel_internal
def whole_lots(st, p, qty):
    """Complete lots in a quantity, forgiving the rounding of the division."""
    return math.floor(qty / st.instrument[p, LOT] + 1e-6)


@kernel_internal
def take_levels(orders, st, p, c, book, s, ts_ns, mid2, fills, n_fills):
    """Fill a taking order against the opposite side, as far as its limit."""
    side = orders.side[p, c]
    levels = len(orders.level_tick)
    opposite = 1 if side > 0 else 0
    count = top_levels(book, s, opposite, levels, orders.level_tick, orders.level_qty)
    for i in range(count):
        px = orders.level_tick[i]
        leaves = orders.qty_lots[p, c] - orders.filled[p, c]
        if leaves == 0 or side * (orders.px_tick[p, c] - px) < 0:
            break
        lots = min(leaves, whole_lots(st, p, orders.level_qty[i]))
        if lots > 0:
            n_fills = paper_fill(orders, st, p, c, px, lots, 0, ts_ns, mid2, fills, n_fills)
    return n_fills


@kernel_internal
def level_qty(orders, book, s, side, px_tick):
    """Displayed quantity at a price near the touch; 0 where there is none."""
    count = top_levels(
        book, s, 0 if side > 0 else 1, len(orders.level_tick), orders.level_tick, orders.level_qty
    )
    for i in range(count):
        if orders.level_tick[i] == px_tick:
            return orders.level_qty[i]
    return 0.0


@kernel_internal
def paper_new(orders, st, p, c, book, s, ts_ns, fills, n_fills):
    """Answer a new order: take, rest, refuse or expire."""
    bid, _, ask, _ = best(book, s)
    side, px, tif = orders.side[p, c], orders.px_tick[p, c], orders.tif[p, c]
    mid2 = 0 if bid == NO_BID or ask == NO_ASK else bid + ask
    takes = px >= ask if side > 0 else px <= bid
    if takes and tif == GTX:
        change(orders, p, c, REJECT)
        return n_fills
    if takes:
        n_fills = take_levels(orders, st, p, c, book, s, ts_ns, mid2, fills, n_fills)
    if orders.filled[p, c] == orders.qty_lots[p, c]:
        return n_fills
    if tif == IOC:
        change(orders, p, c, EXPIRE)
        return n_fills
    change(orders, p, c, ACK)
    orders.ahead[p, c] = level_qty(orders, book, s, side, px)
    return n_fills


@kernel
def paper_submit(orders, st, p, out, i, book, s, ts_ns, fills, n_fills):
    """Answer intent out[i], which `on_sent` has entered. Returns the new count of fills."""
    c = find_order(orders, p, int(out[i]["order_id"]))
    if c < 0:
        return n_fills
    if int(out[i]["kind"]) != CANCEL:
        return paper_new(orders, st, p, c, book, s, ts_ns, fills, n_fills)
    if orders.state[p, c] == PENDING_CANCEL:
        change(orders, p, c, CANCEL_ACK)
    return n_fills


@kernel
def paper_on_trade(orders, st, p, px_tick, qty, side, mid2, ts_ns, fills, n_fills):
    """A public trade in the symbol of strategy `p`. `side` is the aggressor's, `qty` as in the
    feed.

    Returns the new count of fills.
    """
    if orders.live[p] == 0:
        return n_fills
    for c in range(orders.state.shape[1]):
        ours = orders.side[p, c]
        if not WORKING <= orders.state[p, c] <= PENDING_CANCEL or ours != -side:
            continue
        beyond = ours * (orders.px_tick[p, c] - px_tick)
        lots = orders.qty_lots[p, c] - orders.filled[p, c]
        if beyond < 0:
            continue
        if beyond == 0:
            over = qty - orders.ahead[p, c]
            orders.ahead[p, c] = max(-over, 0.0)
            lots = min(lots, whole_lots(st, p, over))
        if lots > 0:
            px = orders.px_tick[p, c]
            n_fills = paper_fill(orders, st, p, c, px, lots, 1, ts_ns, mid2, fills, n_fills)
    return n_fills


@kernel
def paper_on_book(orders, st, p, book, s, ts_ns, fills, n_fills):
    """A complete batch: fills what the opposite quote has crossed, shortens the queues before us.

    Returns the new count of fills.
    """
    if orders.live[p] == 0:
        return n_fills
    bid, _, ask, _ = best(book, s)
    mid2 = 0 if bid == NO_BID or ask == NO_ASK else bid + ask
    for c in range(orders.state.shape[1]):
        if not WORKING <= orders.state[p, c] <= PENDING_CANCEL:
            continue
        side, px = orders.side[p, c], orders.px_tick[p, c]
        if px >= ask if side > 0 else px <= bid:
            lots = orders.qty_lots[p, c] - orders.filled[p, c]
            n_fills = paper_fill(orders, st, p, c, px, lots, 1, ts_ns, mid2, fills, n_fills)
        elif orders.ahead[p, c] > 0.0:
            shown = level_qty(orders, book, s, side, px)
            orders.ahead[p, c] = min(orders.ahead[p, c], shown)
    return n_fills
