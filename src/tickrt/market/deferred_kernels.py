"""The book, split: what a row can see is applied at once, the rest after the order is out.

Entry points: `take_levels` and, for every other event, `apply_other`, both instead of
`kernels.apply_event`; `settle` after a batch, when its orders are out; `apply_deferred` where there
will be no such moment.

A level is put off where it lies in the ladder below `bound`. That changes no row, because above
`bound` there are at least `depth` levels, all of them exact: a price is on one side of the bound
for the whole batch, so the events of one level keep their order. How many levels are left above is
known without counting: only they change the number of levels in the ladder, which is compared with
`floor`. Once they are fewer than `depth`, all that was put off is applied and nothing more is.

Invariants, while anything is put off:
- the best price, its quantity and the best `depth` levels of a side are those of the whole book;
- its ladder does not move. What would move one (a best above it, CLEAR) applies what was put off
  first, and a best that sinks stays above the bound, which is not in the ladder's lowest quarter.
So a level that was put off finds its place unchanged, is never the best, and cannot fail: errors
come from the same event as without the split, and afterwards every array of the book is the same.
A level outside the ladder, which can fail, is never put off.
"""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import BATCH_END, CLEAR, DEPTH, KIND_MASK, LOCAL, SNAPSHOT
from tickrt.compile.intrinsics import prefetch_read
from tickrt.compile.jit import inline_kernel, kernel, kernel_internal
from tickrt.market.kernels import (
    ANCHOR_ASK,
    ANCHOR_BID,
    EVENTS,
    LAST_TS,
    LEVELS_BID,
    TICK_LIMIT,
    apply_event,
    nth_level,
    set_level,
)

__all__ = ["apply_deferred", "apply_other", "settle", "take_levels"]

SPARE = 16  # levels above the bound beyond `depth`, when it is set
AHEAD = 12  # events that are fetched ahead: a long message is read faster than it comes from memory
_INDEX = (1 << 32) - 1


@kernel
def apply_deferred(book, deferred):
    """Apply every level that was put off."""
    for i in range(deferred.count[0]):
        place = deferred.place[i]
        s, side, index = place >> 33, (place >> 32) & 1, place & _INDEX
        before = book.head[s, LEVELS_BID + side]
        set_level(book, s, side, index, deferred.qty[i])
        deferred.floor[s, side] += book.head[s, LEVELS_BID + side] - before
    deferred.count[0] = 0


@kernel_internal
def _stop(book, deferred, s, side):
    """Apply what was put off, and put off nothing more of this side."""
    apply_deferred(book, deferred)
    deferred.bound[s, side] = 0
    deferred.floor[s, side] = 0


@inline_kernel
def _set_now(book, deferred, s, side, index, qty):
    """Set a level above the bound; what was put off follows where too few are left there."""
    set_level(book, s, side, index, qty)
    if book.head[s, LEVELS_BID + side] < deferred.floor[s, side]:
        _stop(book, deferred, s, side)


@kernel_internal
def _set_bound(book, deferred, s, side):
    """Put the bound below the best `depth` levels and a few to spare; 0 where there are not so many
    or they reach too low."""
    wanted = deferred.depth[s] + SPARE
    deferred.bound[s, side] = 0
    deferred.floor[s, side] = 0
    index = nth_level(book, s, side, wanted)
    if index >= book.qty.shape[2] >> 2:
        deferred.bound[s, side] = index
        deferred.floor[s, side] = book.head[s, LEVELS_BID + side] - SPARE


@inline_kernel
def take_levels(book, deferred, s, events, mask, q, end):
    """Apply or put off levels of symbol `s` from event `q` on, until one comes that is anything
    but a good level in the ladder, or the batch ends.

    One loop over plain local variables: what nearly every event goes through.

    Args:
        book, deferred: a `book.Book` and its `deferred.Deferred`.
        s: symbol index.
        events, mask: the feed; event number i lies in ``events[i & mask]``.
        q, end: the first event and the one before which to stop.

    Returns:
        the number of the next event; `q` where `apply_other` must take this one.
    """
    place, later, n = deferred.place, deferred.qty, deferred.count[0]
    head, inv_tick, size = book.head[s], book.inv_tick[s], book.qty.shape[2]
    memory, first = events.ctypes.data, q
    bid, ask = head[ANCHOR_BID], head[ANCHOR_ASK]
    bid_bound, ask_bound = deferred.bound[s, 0], deferred.bound[s, 1]
    while q < end:
        event = events[q & mask]
        prefetch_read(memory + ((q + AHEAD) & mask) * events.itemsize)
        ev = int(event["ev"])
        kind, flag = ev & KIND_MASK, (ev >> 28) & 3
        if (kind != DEPTH and kind != SNAPSHOT) or not ev & LOCAL or int(event["ival"]) != s:
            break
        ticks, qty = event["px"] * inv_tick, event["qty"]
        if not (ticks >= 0.0 and ticks < TICK_LIMIT and qty >= 0.0 and qty < np.inf):
            break
        if flag == 2:
            side, index, bound = 0, int(ticks + 0.5) - bid, bid_bound
        elif flag == 1:
            side, index, bound = 1, -int(ticks + 0.5) - ask, ask_bound
        else:
            break
        if index < 0 or index >= size:
            break
        if index < bound:
            if n == len(place):
                deferred.count[0] = n
                apply_deferred(book, deferred)
                n = 0
            place[n] = (s << 33) + (side << 32) + index
            later[n] = qty
            n += 1
        else:
            deferred.count[0] = n
            _set_now(book, deferred, s, side, index, qty)
            n = deferred.count[0]
            bid, ask = head[ANCHOR_BID], head[ANCHOR_ASK]
            bid_bound, ask_bound = deferred.bound[s, 0], deferred.bound[s, 1]
        q += 1
        if ev & BATCH_END:
            break
    deferred.count[0] = n
    if q > first:
        head[LAST_TS] = events[(q - 1) & mask]["local_ts"]
        head[EVENTS] += q - first
    return q


@inline_kernel
def apply_other(book, deferred, s, ev, px, qty, ts_ns):
    """Apply an event that `take_levels` left; arguments and Code as of `kernels.apply_event`."""
    kind, side = ev & KIND_MASK, 2 - ((ev >> 28) & 3)
    if kind == CLEAR:
        _stop(book, deferred, s, 0)
        _stop(book, deferred, s, 1)
    elif (kind == DEPTH or kind == SNAPSHOT) and side >= 0 and side <= 1:
        sign = 1 - 2 * side
        top = sign * (book.head[s, ANCHOR_BID + side] + book.qty.shape[2])
        if sign * (px * book.inv_tick[s] - top) > -1.0:  # above it, or nearly: the ladder may move
            _stop(book, deferred, s, side)
    return apply_event(book, s, ev, px, qty, ts_ns)


@kernel
def settle(book, deferred, s):
    """After a batch of symbol `s`: apply what was put off; say what of the next may be."""
    apply_deferred(book, deferred)
    for side in range(2):
        spare = book.head[s, LEVELS_BID + side] - deferred.floor[s, side]
        if deferred.bound[s, side] == 0 or spare < SPARE >> 1 or spare > SPARE << 1:
            _set_bound(book, deferred, s, side)
