"""The hot loop: one thread runs this from feed to order, and returns when the feed ends.

Entry point: `run(feed, x, pace)`; `x` is a `runtime.state.Loop`, `feed` a `feeds.ring.FeedView`,
`pace` a `Pace`. No lock, no allocation, no Python object, no system call between event and order.
"""

from typing import NamedTuple

import numpy as np

from tickrt.compile.by_ref import by_ref
from tickrt.compile.codes import BUY, KIND_MASK, LOCAL, TRADE
from tickrt.compile.intrinsics import clock, load_acquire, pause, store_release
from tickrt.compile.jit import kernel
from tickrt.execution.gateways.paper_kernels import paper_on_book, paper_on_trade, paper_submit
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.observe.kernels import record
from tickrt.runtime.loop.step_kernels import (
    ADVANCE,
    ADVANCED,
    BOOK,
    CURSOR,
    ERROR,
    FILLS,
    PAPER,
    QUEUED,
    STARTED,
    WAIT,
    WAITED,
    advance,
    fail,
    step,
    take_batch,
)

READ_AHEAD = 256  # events that a timed feed looks ahead for what is due


class Pace(NamedTuple):
    """When an event of a plain array becomes readable."""

    timed: int  # 0: at once
    start_clock: int  # clock at which the event of time `start_ns` is due
    start_ns: int  # local time, ns
    ticks_per_ns: float  # clock ticks per ns of recorded time


@kernel
def due(pace, local_ts):
    """Clock at which an event of local time `local_ts` becomes readable."""
    return pace.start_clock + int((local_ts - pace.start_ns) * pace.ticks_per_ns)


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
    return x.counters[STARTED]


@kernel
def trade_through(feed, x, s, first, q):
    """The paper gateway sees the batch's trades of symbol `s`, then its book."""
    bid, _, ask, _ = best(x.book, s)
    mid2 = 0 if bid == NO_BID or ask == NO_ASK else bid + ask
    for p in range(len(x.strategies.policy)):
        if x.strategies.symbol[p] != s or x.orders.live[p] == 0:
            continue
        n = x.counters[FILLS]
        for i in range(first, q):
            event = feed.events[i & feed.mask]
            ev = int(event["ev"])
            if ev & LOCAL and ev & KIND_MASK == TRADE and event["ival"] == s:
                side = 1 if ev & BUY else -1
                tick = int(event["px"] * x.book.inv_tick[s] + 0.5)
                ts_ns = event["local_ts"]
                n = paper_on_trade(
                    x.orders, x.strategies, p, tick, event["qty"], side, mid2, ts_ns,
                    x.tape.fills, n,
                )  # fmt: skip
        ts_ns = feed.events[(q - 1) & feed.mask]["local_ts"]
        n = paper_on_book(x.orders, x.strategies, p, x.book, s, ts_ns, x.tape.fills, n)
        x.counters[FILLS] = n


@kernel
def answer_orders(x, ts_ns):
    """The paper gateway answers what lies in the outbox."""
    address, mask = x.outbox.address[0], len(x.outbox.intents) - 1
    for i in range(x.outbox.counts[8], x.outbox.counts[0]):
        p = np.int64(x.outbox.intents[i & mask]["strategy"])
        s = x.strategies.symbol[p]
        x.counters[FILLS] = paper_submit(
            x.orders, x.strategies, p, x.outbox.intents, i & mask, x.book, s, ts_ns,
            x.tape.fills, x.counters[FILLS],
        )  # fmt: skip
    store_release(address + 64, x.outbox.counts[0])


@kernel
def loop(feed, x, pace):
    """Poll → book → row → engine → policy → risk → order out → advance, until the feed ends.

    Returns OK, or the Code of the error that stopped it (which is in the counters).
    """
    q = x.counters[CURSOR]
    first = q
    while load_acquire(x.stop[0]) == 0:
        end = readable(feed, pace, q)
        if end == q:
            if load_acquire(feed.closed) != 0 and load_acquire(feed.published) == q:
                break
            pause()
            continue
        while q < end:
            q, s = take_batch(feed.events, feed.mask, q, end, x)
            if s == -2:
                return x.counters[ERROR]
            if s == -1:
                half = feed.mask >> 1
                if half >= 0 and q - first > half:  # a batch as long as the ring: make room
                    first = q
                    x.counters[CURSOR] = q
                    store_release(feed.consumed, q)
                continue
            now = clock()
            ready = ready_clock(feed, x, pace, q)
            record(x.hist, QUEUED, x.counters[STARTED] - ready)
            record(x.hist, BOOK, now - x.counters[STARTED])
            last = feed.events[(q - 1) & feed.mask]
            ts_ns = last["local_ts"]
            code = step(x, s, ts_ns, last["exch_ts"], ready)
            if code < 0:
                return fail(x, code, q - 1, s)
            if x.settings[PAPER] != 0:
                trade_through(feed, x, s, first, q)
                answer_orders(x, ts_ns)
            if ready < x.counters[ADVANCED]:  # it came while the states were being prepared
                x.counters[WAITED] += 1
                record(x.hist, WAIT, x.counters[ADVANCED] - ready)
            now = clock()
            advance(x, s)
            x.counters[ADVANCED] = clock()
            record(x.hist, ADVANCE, x.counters[ADVANCED] - now)
            first = q
            x.counters[CURSOR] = q
            store_release(feed.consumed, q)
    return 0


@kernel
def run(feed, x, pace):
    """`loop`, for callers in Python: `feed` a FeedView, `x` a Loop, `pace` a Pace."""
    return loop(by_ref(feed), by_ref(x), by_ref(pace))
