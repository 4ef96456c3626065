"""The compiled half of the hftbacktest gateway: our orders in its exchange, its answers as reports.

Entry points: `venue_submit` and `venue_read_reports`, C functions; their context is the address of
a `Pinned` `VenueState`. `ts_ns` is a moment of local time: the venue's time passes until then
first, so the caller decides when an order leaves and when a report is read.
"""

from typing import NamedTuple

import numpy as np

from tickrt.compile.by_ref import struct_at
from tickrt.compile.codes import (
    ACK,
    CANCEL,
    CANCEL_ACK,
    CANCEL_REJECT,
    EXPIRE,
    OK,
    ORDER_SLOTS,
    PARTIAL_FILL,
    REJECT,
    VENUE_FAILED,
)
from tickrt.compile.intrinsics import (
    call1,
    call2,
    call4,
    call_order,
    load_acquire,
    load_f64,
    load_i64,
    store_release,
)
from tickrt.compile.jit import kernel_internal
from tickrt.execution.gateways.kernels import free_slot, publish_report
from tickrt.memory.records import INTENT_DTYPE, REPORT_DTYPE
from tickrt.memory.ring import FeedView, Ring

# Columns of VenueState.calls: hftbacktest's functions (`hftbacktest.CALLS`; a test holds them
# equal).
ELAPSE, NOW, BUY_ORDER, SELL_ORDER, CANCEL_ORDER, ORDERS, CLEAR_INACTIVE = range(7)
CALLS_USED = (ELAPSE, NOW, BUY_ORDER, SELL_ORDER, CANCEL_ORDER, ORDERS, CLEAR_INACTIVE)
TIME, ENDED, VENUE_ERROR, REFUSED = 0, 1, 2, 3  # columns of VenueState.times

# hftbacktest.order: places in its order record, its status and time-in-force numbers.
O_LEAVES, O_EXEC_TICK, O_FLAGS = 8, 24, 88
S_NEW, S_EXPIRED, S_CANCELED, S_PARTIAL, S_REJECTED = 1, 2, 4, 5, 6

NOT_ASKED, WANTED, ASKED = 0, 1, 2  # VenueState.cancel


class VenueState(NamedTuple):
    """The venue as compiled code sees it; P strategies, live orders in `ORDER_SLOTS` slots each."""

    calls: np.ndarray  # i8[7] addresses of CALLS
    get: np.ndarray  # i8[1] address of hftbacktest's orders_get
    pointer: np.ndarray  # i8[1] the backtester
    short_lots: np.ndarray  # f8[1] by how much less than ordered is submitted
    times: np.ndarray  # i8[4] its time, end of data reached, its error, orders it refused
    orders: FeedView  # INTENT_DTYPE, in
    reports: FeedView  # REPORT_DTYPE, out
    symbol: np.ndarray  # i8[P]
    tick_size: np.ndarray  # f8[P]
    lot_size: np.ndarray  # f8[P]
    order_id: np.ndarray  # i8[P, ORDER_SLOTS]; 0 = free
    lots: np.ndarray  # i8[P, ORDER_SLOTS] as ordered
    filled: np.ndarray  # i8[P, ORDER_SLOTS] lots reported so far
    acked: np.ndarray  # i8[P, ORDER_SLOTS]
    cancel: np.ndarray  # i8[P, ORDER_SLOTS] whether a cancel is wanted, or asked for
    live: np.ndarray  # i8[P] how many slots are in use
    cursor: np.ndarray  # i8[P] where the search for a slot starts


def new_state(calls, get, pointer, short_lots, rings, symbols, sizes):
    """The state of a fresh backtester.

    `rings`: views of the order and the report queue; `sizes`: (tick, lot) size of each strategy.
    """
    count = len(symbols)
    shape = (count, ORDER_SLOTS)
    tick_lot = np.array(sizes, np.float64).reshape(count, 2)
    return VenueState(
        calls=np.array(calls, np.int64),
        get=np.array([get], np.int64),
        pointer=np.array([pointer], np.int64),
        short_lots=np.array([short_lots]),
        times=np.zeros(4, np.int64),
        orders=rings[0],
        reports=rings[1],
        symbol=np.array(symbols, np.int64),
        tick_size=tick_lot[:, 0].copy(),
        lot_size=tick_lot[:, 1].copy(),
        order_id=np.zeros(shape, np.int64),
        lots=np.zeros(shape, np.int64),
        filled=np.zeros(shape, np.int64),
        acked=np.zeros(shape, np.int64),
        cancel=np.zeros(shape, np.int64),
        live=np.zeros(count, np.int64),
        cursor=np.zeros(count, np.int64),
    )


def _example():
    rings = [Ring.local(2, dtype).view for dtype in (INTENT_DTYPE, REPORT_DTYPE)]
    return new_state([0] * 7, 0, 0, 0.0, rings, [0], [(1.0, 1.0)])


state_at = struct_at(_example)


@kernel_internal
def open_clock(v):
    """Start the venue's time, once. Returns 0, or VENUE_FAILED."""
    if v.times[TIME] != 0:
        return OK
    if call2(v.calls[ELAPSE], v.pointer[0], 0) > 1:
        return VENUE_FAILED
    v.times[TIME] = call1(v.calls[NOW], v.pointer[0])
    return OK


@kernel_internal
def go_to(v, ts_ns):
    """Let the venue's time pass until `ts_ns`. Returns 0, or VENUE_FAILED."""
    if open_clock(v) < 0:
        return VENUE_FAILED
    if v.times[ENDED] != 0 or ts_ns <= v.times[TIME]:
        return OK
    code = call2(v.calls[ELAPSE], v.pointer[0], ts_ns - v.times[TIME])
    v.times[TIME] = ts_ns
    if code == 1:
        v.times[ENDED] = 1
    elif code != 0:
        v.times[VENUE_ERROR] = code
        return VENUE_FAILED
    return OK


@kernel_internal
def answer(v, p, c, event, px_tick, lots, maker, ts_ns):
    """Report on the order in slot `c`. Returns a Code."""
    order_id = v.order_id[p, c]
    return publish_report(v.reports, p, v.symbol[p], order_id, event, px_tick, lots, maker, ts_ns)


@kernel_internal
def end_event(status):
    """The order event for a final status of hftbacktest's; 0 while the order is live."""
    if status == S_EXPIRED:
        return EXPIRE
    if status == S_CANCELED:
        return CANCEL_ACK
    return REJECT if status == S_REJECTED else 0


@kernel_internal
def free(v, p, c):
    """The order in slot `c` has ended."""
    v.order_id[p, c] = 0
    v.live[p] -= 1


@kernel_internal
def its_order(v, p, order_id):
    """The address of hftbacktest's record of an order, 0 where it has none."""
    return call2(v.get[0], call2(v.calls[ORDERS], v.pointer[0], v.symbol[p]), order_id)


@kernel_internal
def ask_cancel(v, p, c):
    """Ask the venue to cancel, unless it has not answered the order yet."""
    order = its_order(v, p, v.order_id[p, c])
    if order != 0 and (load_i64(order + O_FLAGS) >> 16) & 0xFF == 0:
        order_id = v.order_id[p, c]
        if call4(v.calls[CANCEL_ORDER], v.pointer[0], v.symbol[p], order_id, 0) == 0:
            v.cancel[p, c] = ASKED


@kernel_internal
def read_order(v, p, c, ts_ns):
    """Report what has happened to the order in slot `c`. Returns a Code."""
    order = its_order(v, p, v.order_id[p, c])
    if order == 0:
        return OK
    flags = load_i64(order + O_FLAGS)
    maker, request, status = flags & 1, (flags >> 16) & 0xFF, (flags >> 24) & 0xFF
    code = OK
    if v.acked[p, c] == 0 and (status == S_NEW or status == S_PARTIAL):
        v.acked[p, c] = 1
        code = answer(v, p, c, ACK, 0, 0, 0, ts_ns)
    leaves = int(load_f64(order + O_LEAVES) / v.lot_size[p] + 0.5)
    new = v.lots[p, c] - leaves - v.filled[p, c]
    if new > 0:
        v.filled[p, c] += new
        px = load_i64(order + O_EXEC_TICK)
        code = min(code, answer(v, p, c, PARTIAL_FILL, px, new, maker, ts_ns))
        if leaves == 0:
            free(v, p, c)
            return code
    ended = end_event(status)
    if ended != 0:
        code = min(code, answer(v, p, c, ended, 0, 0, 0, ts_ns))
        free(v, p, c)
    elif v.cancel[p, c] != NOT_ASKED and request == 0:
        if v.cancel[p, c] == ASKED:
            v.cancel[p, c] = NOT_ASKED
            code = min(code, answer(v, p, c, CANCEL_REJECT, 0, 0, 0, ts_ns))
        else:  # it was wanted before the venue had answered the order
            ask_cancel(v, p, c)
    return code


@kernel_internal
def shares_no_order(v, p):
    """No later strategy of the same symbol has reports that are still to be read."""
    for other in range(p + 1, len(v.symbol)):
        if v.symbol[other] == v.symbol[p] and v.live[other] != 0:
            return False
    return True


@kernel_internal
def enter(v, p, intent, ts_ns):
    """Submit a new order; a refusal ends it at once. Returns a Code."""
    c = free_slot(v, p)
    if c < 0:
        return VENUE_FAILED
    side, tif, lots = int(intent["side"]), int(intent["tif"]), int(intent["qty_lots"])
    v.order_id[p, c] = int(intent["order_id"])
    v.lots[p, c], v.filled[p, c], v.acked[p, c] = lots, 0, 0
    v.cancel[p, c] = NOT_ASKED
    v.live[p] += 1
    code = call_order(
        v.calls[BUY_ORDER if side > 0 else SELL_ORDER],
        v.pointer[0],
        v.symbol[p],
        v.order_id[p, c],
        int(intent["px_tick"]) * v.tick_size[p],
        (lots - v.short_lots[0]) * v.lot_size[p],
        tif if tif == 3 else tif - 1,  # hftbacktest: GTC 0, GTX 1, IOC 3
        0,
        0,
    )
    if code == 0:
        return OK
    v.times[REFUSED] += 1
    code = answer(v, p, c, REJECT, 0, 0, 0, ts_ns)
    free(v, p, c)
    return code


@kernel_internal
def cancel(v, p, order_id):
    """A cancel of ours: ask now, or as soon as the venue has answered the order."""
    for c in range(ORDER_SLOTS):
        if v.order_id[p, c] == order_id:
            v.cancel[p, c] = WANTED
            ask_cancel(v, p, c)


def venue_submit(ctx, ts_ns):
    """`submit` of the hftbacktest gateway: the orders in the queue leave at `ts_ns`."""
    v = state_at(ctx)
    code = go_to(v, ts_ns)
    q, end = load_i64(v.orders.consumed), load_acquire(v.orders.published)
    while code >= 0 and q < end:
        intent = v.orders.events[q & v.orders.mask]
        p = np.int64(intent["strategy"])  # int() would keep it an int16
        if int(intent["kind"]) == CANCEL:
            cancel(v, p, int(intent["order_id"]))
        else:
            code = min(code, enter(v, p, intent, ts_ns))
        q += 1
    store_release(v.orders.consumed, q)
    return code


def venue_read_reports(ctx, ts_ns):
    """`read_reports` of the hftbacktest gateway: what it has reported by `ts_ns`."""
    v = state_at(ctx)
    code = go_to(v, ts_ns)
    for p in range(len(v.symbol)):
        before = v.live[p]
        if before == 0 or code < 0:
            continue
        for c in range(ORDER_SLOTS):
            if v.order_id[p, c] != 0:
                code = min(code, read_order(v, p, c, ts_ns))
        if v.live[p] < before and shares_no_order(v, p):
            call2(v.calls[CLEAR_INACTIVE], v.pointer[0], v.symbol[p])
    return code
