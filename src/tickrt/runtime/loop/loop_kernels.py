"""The hot loop: one thread runs this from feed to order, and returns when the feed ends.

Entry point: `run(feed, x, pace)`; `x` is a `state.Loop`, `feed` a `memory.ring.FeedView`, `pace` a
`Pace`. No lock, no allocation, no Python object, no system call between event and order.
"""

from typing import NamedTuple

from tickrt.compile.by_ref import by_ref
from tickrt.compile.codes import (
    COUNT_ADVANCED,
    COUNT_CURSOR,
    COUNT_ERROR,
    COUNT_LAST_TS,
    COUNT_OPEN,
    COUNT_STARTED,
    COUNT_WAITED,
    OK,
    STAGE_ADVANCE,
    STAGE_BOOK,
    STAGE_QUEUED,
    STAGE_WAIT,
)
from tickrt.compile.intrinsics import clock, load_acquire, load_i64, pause
from tickrt.compile.jit import kernel
from tickrt.market.deferred_kernels import apply_deferred, settle
from tickrt.observe.kernels import record
from tickrt.runtime.loop.flight_kernels import (
    SETTLED,
    land_all,
    land_ready,
    make_way,
    release,
    start,
)
from tickrt.runtime.loop.record_kernels import publish_records, record_clock, room, wait_for_room
from tickrt.runtime.loop.step_kernels import (
    WAIT_FOR_RECORDS,
    advance,
    fail,
    finish_batch,
    on_batch,
    read_reports,
    submit_orders,
    take_batch,
    take_reports,
)

READ_AHEAD = 256  # events that a timed feed looks ahead for what is due
FAR = 4e18  # clock ticks: more is never waited for, and does not fit an int64


class Pace(NamedTuple):
    """When an event of a plain array becomes readable."""

    timed: int  # 0: at once
    start_clock: int  # clock at which the event of time `start_ns` is due
    start_ns: int  # local time, ns
    ticks_per_ns: float  # clock ticks per ns of recorded time


@kernel
def due(pace, local_ts):
    """Clock at which an event of local time `local_ts` becomes readable."""
    ticks = (local_ts - pace.start_ns) * pace.ticks_per_ns
    return pace.start_clock + int(min(max(ticks, -FAR), FAR))


@kernel
def readable(feed, pace, q):
    """One past the last event that may be read now, starting at number `q`."""
    end = load_acquire(feed.published)
    if pace.timed == 0:
        return end
    now = clock()
    end = min(end, q + READ_AHEAD)
    while q < end and due(pace, feed.events[q & feed.mask]["local_ts"]) <= now:
        q += 1
    return q


@kernel
def ready_clock(feed, x, pace, q):
    """Clock at which the batch that ends before event number `q` became readable."""
    last = (q - 1) & feed.mask
    if feed.stamps[last] != 0:
        return feed.stamps[last]
    if pace.timed != 0:
        return due(pace, feed.events[last]["local_ts"])
    return x.counters[COUNT_STARTED]


@kernel
def play_batch(feed, x, pace, s, first, q):
    """The batch of symbol `s` that ends before event `q` is in the book: the rest. A Code."""
    c = x.counters
    now = clock()
    ready = ready_clock(feed, x, pace, q)
    record(x.hist, STAGE_QUEUED, c[COUNT_STARTED] - ready)
    record(x.hist, STAGE_BOOK, now - c[COUNT_STARTED])
    last = feed.events[(q - 1) & feed.mask]
    ts_ns = last["local_ts"]
    code = start(x, s, q - 1, ts_ns, last["exch_ts"], ready, now)
    code = min(code, submit_orders(x, ts_ns))
    out = clock()
    settle(x.book, x.deferred, s)
    settled = clock() - out
    code = min(code, on_batch(x, s, first, q, ts_ns))
    if code < 0:
        return fail(x, code, q - 1, s)
    if ready < c[COUNT_ADVANCED]:  # it came while the states were being prepared
        c[COUNT_WAITED] += 1
        record(x.hist, STAGE_WAIT, c[COUNT_ADVANCED] - ready)
    now = clock()
    if x.flights.left[s] == 0:
        advance(x, s)
        c[COUNT_ADVANCED] = clock()
        record(x.hist, STAGE_ADVANCE, settled + c[COUNT_ADVANCED] - now)
    else:  # whoever lands the last of them advances
        x.flights.batch[s, SETTLED] = settled
        c[COUNT_ADVANCED] = now
    finish_batch(x, q, ts_ns)
    release(feed, x, q)
    return code


@kernel
def idle(feed, x):
    """Nothing to read from the feed: what engines and the gateway say meanwhile. A Code."""
    queue = x.report_queue
    if x.flights.total[0] > 0:
        code = land_ready(feed, x)
        if code < 0:
            return code
    if load_acquire(queue.published) == load_i64(queue.consumed):
        pause()
        return OK
    code = take_reports(x, x.counters[COUNT_LAST_TS])
    publish_records(x.records)
    return code


@kernel
def loop(feed, x, pace):
    """Poll → what a row sees of the book → row → engine → policy → risk → order out → rest of the
    book → advance, until the feed ends.

    Returns OK, or the Code of the error that stopped it (which is in the counters).
    """
    q = x.counters[COUNT_CURSOR]
    first = q
    while load_acquire(x.stop[0]) == 0:
        end = readable(feed, pace, q)
        if end == q:
            if load_acquire(feed.closed) != 0 and load_acquire(feed.published) == q:
                break
            code = idle(feed, x)
            if code < 0:
                return fail(x, code, q, -1)
            continue
        while q < end:
            if x.settings[WAIT_FOR_RECORDS] != 0 and not room(x.records):
                wait_for_room(x)
            if x.counters[COUNT_OPEN] == 0:
                code = read_reports(x, x.counters[COUNT_LAST_TS])
                if x.flights.total[0] > 0:
                    code = min(code, make_way(feed, x, q, end))
                if code < 0:
                    return fail(x, code, q, -1)
            q, s = take_batch(feed.events, feed.mask, q, end, x)
            if s == -2:
                return x.counters[COUNT_ERROR]
            if s == -1:
                half = feed.mask >> 1
                if half >= 0 and q - first > half:  # a batch as long as the ring: make room
                    first = q
                    x.counters[COUNT_CURSOR] = q
                    release(feed, x, q)
                continue
            code = play_batch(feed, x, pace, s, first, q)
            if code < 0:
                return code
            first = q
            if load_acquire(x.stop[0]) != 0:
                break
    code = land_all(feed, x)
    return OK if code >= 0 else fail(x, code, q, -1)


@kernel
def run(feed, x, pace):
    """`loop`, for callers in Python: `feed` a FeedView, `x` a Loop, `pace` a Pace."""
    code = loop(by_ref(feed), by_ref(x), by_ref(pace))
    apply_deferred(x.book, x.deferred)  # of a batch that is not complete, or failed
    record_clock(x, x.counters[COUNT_CURSOR], x.counters[COUNT_LAST_TS])
    publish_records(x.records)
    return code
