"""What gateways share: how a report is published, how orders are thrown away.

Entry points: `publish_report`; `free_slot` of a gateway with `ORDER_SLOTS` orders a strategy; the C
function `discard`.
"""

from tickrt.compile.codes import OK, ORDER_SLOTS, RING_FULL
from tickrt.compile.intrinsics import load_acquire, load_i64, store_release
from tickrt.compile.jit import kernel_internal


def discard(ctx, ts_ns):
    """Take every order and forget it; `ctx`: addresses of the order ring's two counts."""
    store_release(load_i64(ctx + 8), load_acquire(load_i64(ctx)))
    return OK


@kernel_internal
def publish_report(ring, p, s, order_id, event, px_tick, qty_lots, maker, ts_ns):
    """Put a report into `ring` (a FeedView of REPORT_DTYPE). RING_FULL where there is no room."""
    head = load_i64(ring.published)
    if head - load_acquire(ring.consumed) > ring.mask:
        return RING_FULL
    r = ring.events[head & ring.mask]
    r["venue_ref"] = 0
    r["ts_ns"] = ts_ns
    r["order_id"] = order_id
    r["px_tick"] = px_tick
    r["qty_lots"] = qty_lots
    r["event"] = event
    r["strategy"] = p
    r["symbol"] = s
    r["maker"] = maker
    store_release(ring.published, head + 1)
    return OK


@kernel_internal
def free_slot(g, p):
    """A slot without an order, the longest unused first; −1 when all are taken."""
    for i in range(ORDER_SLOTS):
        c = (g.cursor[p] + i) % ORDER_SLOTS
        if g.order_id[p, c] == 0:
            g.cursor[p] = (c + 1) % ORDER_SLOTS
            return c
    return -1
