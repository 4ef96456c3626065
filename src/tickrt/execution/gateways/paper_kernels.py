"""The compiled half of the paper gateway: answers orders from the displayed book and the trades.

Entry point: `paper_on_batch`, a C function; its context is the address of a `Pinned` `PaperState`.
The order of things in a batch: the batch's trades against resting orders, then its book, then the
orders and cancels that were decided on it.
"""

import math
from typing import NamedTuple

import numpy as np

from tickrt.compile.by_ref import struct_at
from tickrt.compile.codes import (
    ACK,
    BUY,
    CANCEL,
    CANCEL_ACK,
    CANCEL_REJECT,
    EXPIRE,
    GTX,
    IOC,
    KIND_MASK,
    LOCAL,
    OK,
    ORDER_SLOTS,
    PARTIAL_FILL,
    REJECT,
    TRADE,
)
from tickrt.compile.intrinsics import load_acquire, load_i64, store_release
from tickrt.compile.jit import kernel_internal
from tickrt.execution.gateways.kernels import free_slot, publish_report
from tickrt.market.book import Book, new_book
from tickrt.market.kernels import best, top_levels
from tickrt.memory.records import EVENT_DTYPE, INTENT_DTYPE, REPORT_DTYPE
from tickrt.memory.ring import FeedView, Ring

LEVELS = 64  # book levels that one order may walk


class PaperState(NamedTuple):
    """What the paper gateway knows; P strategies, their orders in `ORDER_SLOTS` slots each."""

    book: Book  # the loop's own, read only
    feed: FeedView  # the loop's own: the trades of a batch
    orders: FeedView  # INTENT_DTYPE, in
    reports: FeedView  # REPORT_DTYPE, out
    symbol: np.ndarray  # i8[P]
    lot_size: np.ndarray  # f8[P]
    order_id: np.ndarray  # i8[P, ORDER_SLOTS]; 0 = free
    side: np.ndarray  # i8[P, ORDER_SLOTS]
    px_tick: np.ndarray  # i8[P, ORDER_SLOTS]
    leaves: np.ndarray  # i8[P, ORDER_SLOTS] lots that are not filled yet
    ahead: np.ndarray  # f8[P, ORDER_SLOTS] quantity before us in the queue
    resting: np.ndarray  # i8[P] how many slots are in use
    cursor: np.ndarray  # i8[P] where the search for a slot starts
    level_tick: np.ndarray  # i8[LEVELS] scratch
    level_qty: np.ndarray  # f8[LEVELS] scratch
    code: np.ndarray  # i8[1] the worst Code of a report that could not be published


def new_state(book, feed, orders, reports, symbols, lot_sizes):
    """An empty gateway for strategies on `symbols` (indices) with those lot sizes."""
    shape = (len(symbols), ORDER_SLOTS)
    return PaperState(
        book=book,
        feed=feed,
        orders=orders,
        reports=reports,
        symbol=np.array(symbols, np.int64),
        lot_size=np.array(lot_sizes, np.float64),
        order_id=np.zeros(shape, np.int64),
        side=np.zeros(shape, np.int64),
        px_tick=np.zeros(shape, np.int64),
        leaves=np.zeros(shape, np.int64),
        ahead=np.zeros(shape),
        resting=np.zeros(len(symbols), np.int64),
        cursor=np.zeros(len(symbols), np.int64),
        level_tick=np.zeros(LEVELS, np.int64),
        level_qty=np.zeros(LEVELS),
        code=np.zeros(1, np.int64),
    )


def _example():
    rings = [Ring.local(2, dtype).view for dtype in (EVENT_DTYPE, INTENT_DTYPE, REPORT_DTYPE)]
    return new_state(new_book([1.0], 1 << 12, 8), *rings, [0], [1.0])


state_at = struct_at(_example)


@kernel_internal
def answer(g, p, order_id, event, px_tick, lots, maker, ts_ns):
    """Report on an order of strategy `p`."""
    code = publish_report(g.reports, p, g.symbol[p], order_id, event, px_tick, lots, maker, ts_ns)
    if code < 0:
        g.code[0] = code


@kernel_internal
def fill_resting(g, p, c, lots, ts_ns):
    """Fill `lots` of the order in slot `c` at its price; a filled order leaves its slot."""
    answer(g, p, g.order_id[p, c], PARTIAL_FILL, g.px_tick[p, c], lots, 1, ts_ns)
    g.leaves[p, c] -= lots
    if g.leaves[p, c] == 0:
        g.order_id[p, c] = 0
        g.resting[p] -= 1


@kernel_internal
def whole_lots(g, p, qty):
    """Complete lots in a quantity, forgiving the rounding of the division."""
    return math.floor(qty / g.lot_size[p] + 1e-6)


@kernel_internal
def level_qty(g, s, side, px_tick):
    """Displayed quantity at a price near the touch; 0 where there is none."""
    count = top_levels(
        g.book, s, 0 if side > 0 else 1, len(g.level_tick), g.level_tick, g.level_qty
    )
    for i in range(count):
        if g.level_tick[i] == px_tick:
            return g.level_qty[i]
    return 0.0


@kernel_internal
def take_levels(g, p, intent, s, ts_ns):
    """Fill a taking order against the opposite side, as far as its limit; the lots left."""
    side, order_id = int(intent["side"]), int(intent["order_id"])
    leaves = int(intent["qty_lots"])
    opposite = 1 if side > 0 else 0
    count = top_levels(g.book, s, opposite, len(g.level_tick), g.level_tick, g.level_qty)
    for i in range(count):
        px = g.level_tick[i]
        if leaves == 0 or side * (int(intent["px_tick"]) - px) < 0:
            break
        lots = min(leaves, whole_lots(g, p, g.level_qty[i]))
        if lots > 0:
            answer(g, p, order_id, PARTIAL_FILL, px, lots, 0, ts_ns)
            leaves -= lots
    return leaves


@kernel_internal
def enter(g, p, intent, s, ts_ns):
    """Answer a new order: take, rest, refuse or expire."""
    bid, _, ask, _ = best(g.book, s)
    side, px, tif = int(intent["side"]), int(intent["px_tick"]), int(intent["tif"])
    order_id, leaves = int(intent["order_id"]), int(intent["qty_lots"])
    takes = px >= ask if side > 0 else px <= bid
    if takes and tif == GTX:
        answer(g, p, order_id, REJECT, 0, 0, 0, ts_ns)
        return
    if takes:
        leaves = take_levels(g, p, intent, s, ts_ns)
    if leaves == 0:
        return
    if tif == IOC:
        answer(g, p, order_id, EXPIRE, 0, 0, 0, ts_ns)
        return
    c = free_slot(g, p)
    if c < 0:  # more orders than the loop's own table holds
        answer(g, p, order_id, REJECT, 0, 0, 0, ts_ns)
        return
    answer(g, p, order_id, ACK, 0, 0, 0, ts_ns)
    g.order_id[p, c] = order_id
    g.side[p, c] = side
    g.px_tick[p, c] = px
    g.leaves[p, c] = leaves
    g.ahead[p, c] = level_qty(g, s, side, px)
    g.resting[p] += 1


@kernel_internal
def cancel(g, p, order_id, ts_ns):
    """Answer a cancel."""
    for c in range(ORDER_SLOTS):
        if g.order_id[p, c] == order_id:
            g.order_id[p, c] = 0
            g.resting[p] -= 1
            answer(g, p, order_id, CANCEL_ACK, 0, 0, 0, ts_ns)
            return
    answer(g, p, order_id, CANCEL_REJECT, 0, 0, 0, ts_ns)


@kernel_internal
def on_trade(g, p, px_tick, qty, side, ts_ns):
    """A public trade in the symbol of strategy `p`; `side` is the aggressor's, `qty` the feed's."""
    for c in range(ORDER_SLOTS):
        ours = g.side[p, c]
        if g.order_id[p, c] == 0 or ours != -side:
            continue
        beyond = ours * (g.px_tick[p, c] - px_tick)
        lots = g.leaves[p, c]
        if beyond < 0:
            continue
        if beyond == 0:
            over = qty - g.ahead[p, c]
            g.ahead[p, c] = max(-over, 0.0)
            lots = min(lots, whole_lots(g, p, over))
        if lots > 0:
            fill_resting(g, p, c, lots, ts_ns)


@kernel_internal
def on_book(g, p, s, ts_ns):
    """A complete batch: fills what the opposite quote has crossed, shortens the queues before
    us."""
    bid, _, ask, _ = best(g.book, s)
    for c in range(ORDER_SLOTS):
        if g.order_id[p, c] == 0:
            continue
        side, px = g.side[p, c], g.px_tick[p, c]
        if px >= ask if side > 0 else px <= bid:
            fill_resting(g, p, c, g.leaves[p, c], ts_ns)
        elif g.ahead[p, c] > 0.0:
            g.ahead[p, c] = min(g.ahead[p, c], level_qty(g, s, side, px))


@kernel_internal
def trade_through(g, s, first, end, ts_ns):
    """The batch's trades and its book against the resting orders of symbol `s`."""
    for p in range(len(g.symbol)):
        if g.symbol[p] != s or g.resting[p] == 0:
            continue
        for i in range(first, end):
            event = g.feed.events[i & g.feed.mask]
            ev = int(event["ev"])
            if ev & LOCAL and ev & KIND_MASK == TRADE and event["ival"] == s:
                side = 1 if ev & BUY else -1
                tick = int(event["px"] * g.book.inv_tick[s] + 0.5)
                on_trade(g, p, tick, event["qty"], side, event["local_ts"])
        on_book(g, p, s, ts_ns)


@kernel_internal
def answer_orders(g, ts_ns):
    """Answer what the loop has published."""
    q, end = load_i64(g.orders.consumed), load_acquire(g.orders.published)
    for i in range(q, end):
        intent = g.orders.events[i & g.orders.mask]
        p = np.int64(intent["strategy"])
        if int(intent["kind"]) == CANCEL:
            cancel(g, p, int(intent["order_id"]), ts_ns)
        else:
            enter(g, p, intent, g.symbol[p], ts_ns)
    store_release(g.orders.consumed, end)


def paper_on_batch(ctx, s, first, end):
    """`on_batch` of the paper gateway."""
    g = state_at(ctx)
    ts_ns = g.feed.events[(end - 1) & g.feed.mask]["local_ts"]
    trade_through(g, s, first, end, ts_ns)
    answer_orders(g, ts_ns)
    return min(g.code[0], OK)
