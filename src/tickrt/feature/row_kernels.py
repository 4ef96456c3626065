"""Compiled replay of an event file into feature rows."""

from __future__ import annotations

from tickrt.compile.codes import BATCH_END, CLEAR, KIND_MASK, LOCAL
from tickrt.compile.jit import kernel
from tickrt.feature.kernels import UNSIGNED, make_row, on_event, reset
from tickrt.market.kernels import apply_event, best, check

__all__ = ["collect"]


@kernel
def collect(events, book, streams, rows, times, mids, imbalances, volumes, counts):
    """Replay LOCAL `events` of one symbol; write each row of stream 0.

    Args:
        events: EVENT_DTYPE.
        book, streams: fresh state of one symbol and one stream.
        rows: float32 [n, F], receives the rows.
        times: int64 [n], receives their times in ns.
        mids: float64 [n], receives the mid price in ticks.
        imbalances: float64 [n], receives (bid − ask) / (bid + ask) of the best quantities.
        volumes: float64 [n], receives the traded volume since the row before.
        counts: int64 [n], receives rows since the last reset, the row itself included.

    Returns:
        the number of rows, or the code (< 0) of the first event that failed.
    """
    n = 0
    width = rows.shape[1]
    for i in range(len(events)):
        ev = int(events[i].ev)
        if ev & LOCAL == 0:
            continue
        px, qty, ts_ns = events[i].px, events[i].qty, events[i].local_ts
        code = apply_event(book, 0, ev, px, qty, ts_ns)
        if code < 0:
            return code
        if ev & KIND_MASK == CLEAR:
            reset(streams, 0)
        on_event(streams, 0, book, 0, ev, px, qty, ts_ns)
        if ev & BATCH_END == 0:
            continue
        code = check(book, 0)
        if code < 0:
            return code
        volume = streams.acc[0, UNSIGNED]
        seq = make_row(streams, 0, book, 0, ts_ns)
        if seq < 0:
            return seq
        if seq == 0:
            continue
        first = (seq % streams.window[0]) * width
        for j in range(width):
            rows[n, j] = streams.rows[first + j]
        bid, bid_qty, ask, ask_qty = best(book, 0)
        times[n] = ts_ns
        mids[n] = 0.5 * (bid + ask)
        imbalances[n] = (bid_qty - ask_qty) / (bid_qty + ask_qty)
        volumes[n] = volume
        counts[n] = streams.count[0]
        n += 1
    return n
