"""The backtest's loop: the session's own step kernel, with hftbacktest as the gateway.

Entry point: `replay(events, loop, times, time)`. In the pieces of it `x` is a
`runtime.loop.state.Loop`, `times` the gateway's (`VenueState.times`), `c` a `run.Clock`. Three
times are kept apart, all in ns of local time:

    batch   when the batch was received         busy    until when the loop is occupied by what
    start   = max(batch, busy)                          came before it (inference takes time)

At `start` the reports of our orders are read and the batch is applied; the engine's time is
charged; at `start + charge` what it decided is submitted. So a slow engine sees stale books and
falls behind, as it would live.

It ends with the venue's data: what would be decided on its last batch, or after it, is not.

Invariant: with the same events, engine outputs and charged times the orders are the same, byte by
byte.
"""

from tickrt.compile.by_ref import by_ref
from tickrt.compile.codes import (
    BATCH_END,
    COUNT_CURSOR,
    COUNT_ERROR,
    COUNT_FAULTS,
    COUNT_SIGNALS,
    LOCAL,
    OK,
    TICK,
)
from tickrt.compile.intrinsics import clock, load_acquire
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.execution.gateways.hftbacktest_kernels import ENDED
from tickrt.market.deferred_kernels import apply_deferred, settle
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.runtime.loop.record_kernels import publish_records, record_clock, wait_for_room
from tickrt.runtime.loop.step_kernels import (
    SECOND,
    advance,
    fail,
    finish_batch,
    on_batch,
    read_reports,
    step,
    submit_orders,
    take_batch,
)
from tickrt.strategy.kernels import equity

BUSY, CHARGED, NEXT_MARK, MARKS = 0, 1, 2, 3  # columns of run.Clock.state


@kernel_internal
def charge(c, inferences, ticks):
    """The time of this step's inferences in ns, noted in `c.charged`."""
    total = 0
    for _ in range(inferences):
        n = c.state[CHARGED]
        if c.measure[0] != 0.0:
            took = int(ticks * c.measure[0]) // inferences
        else:
            took = c.samples[n % len(c.samples)]
        if n < len(c.charged):
            c.charged[n] = took
        c.state[CHARGED] = n + 1
        total += took
    return total


@kernel_internal
def write_mark(x, c, n):
    """Mark every strategy at the present mid: equity, fees, position, mid."""
    st = x.strategies
    for p in range(len(st.policy)):
        bid, _, ask, _ = best(x.book, st.symbol[p])
        if bid == NO_BID or ask == NO_ASK:
            if n > 0:
                for i in range(4):
                    c.marks[p, n, i] = c.marks[p, n - 1, i]
            continue
        mid = 0.5 * (bid + ask) * st.instrument[p, TICK]
        c.marks[p, n, 0] = equity(st, p, mid)
        c.marks[p, n, 1] = st.fees[p]
        c.marks[p, n, 2] = st.position[p]
        c.marks[p, n, 3] = mid


@kernel_internal
def mark_until(x, c, ts_ns):
    """Write the marks of every whole second up to `ts_ns`, before its batch is applied."""
    if c.state[NEXT_MARK] == 0:
        c.state[NEXT_MARK] = ts_ns
    while c.state[NEXT_MARK] < ts_ns and c.state[MARKS] < c.marks.shape[1]:
        write_mark(x, c, c.state[MARKS])
        c.state[MARKS] += 1
        c.state[NEXT_MARK] += SECOND


@kernel_internal
def batch_time(events, q, end):
    """Local time of the batch that begins at event `q`; −1 where no complete one is left."""
    while q < end:
        ev = int(events[q]["ev"])
        if ev & LOCAL and ev & BATCH_END:
            return events[q]["local_ts"]
        q += 1
    return -1


@kernel_internal
def play_batch(events, x, times, c, q, batch_ns):
    """One batch: reports, book, step, charge, orders. Returns (next q, Code)."""
    mark_until(x, c, batch_ns)
    start = max(batch_ns, c.state[BUSY])
    code = read_reports(x, start)
    if code < 0:
        return q, fail(x, code, q, -1)
    first = q
    q, s = take_batch(events, -1, q, len(events), x)
    if s < 0:
        return q, x.counters[COUNT_ERROR]
    if times[ENDED] != 0:
        settle(x.book, x.deferred, s)
        finish_batch(x, q, batch_ns)
        return q, OK
    before = x.counters[COUNT_SIGNALS] + x.counters[COUNT_FAULTS]
    began = clock()
    code = step(x, s, q - 1, batch_ns, events[q - 1]["exch_ts"], began, began)
    took = clock() - began
    inferences = x.counters[COUNT_SIGNALS] + x.counters[COUNT_FAULTS] - before
    c.state[BUSY] = start + charge(c, inferences, took)
    code = min(code, submit_orders(x, c.state[BUSY]))
    settle(x.book, x.deferred, s)
    code = min(code, on_batch(x, s, first, q, c.state[BUSY]))
    if code < 0:
        return q, fail(x, code, q - 1, s)
    began = clock()
    advance(x, s)
    c.state[BUSY] += int((clock() - began) * c.measure[0])
    finish_batch(x, q, batch_ns)
    return q, code


@kernel
def replay(events, loop, times, time):
    """Replay `events` (EVENT_DTYPE, a plain array) until they end or `loop.stop` is set.

    After it `time.marks[:, :time.state[3]]` holds the marks of each second and the last one at the
    end. Returns a Code.
    """
    x, c = by_ref(loop), by_ref(time)
    q, end, code, batch_ns = x.counters[COUNT_CURSOR], len(events), OK, 0
    while load_acquire(x.stop[0]) == 0:
        batch_ns = batch_time(events, q, end)
        if batch_ns < 0:
            break
        wait_for_room(x)
        q, code = play_batch(events, x, times, c, q, batch_ns)
        if code < 0:
            break
    apply_deferred(x.book, x.deferred)  # of a batch that failed
    if code >= 0 and c.state[MARKS] < c.marks.shape[1]:
        write_mark(x, c, c.state[MARKS])
        c.state[MARKS] += 1
    record_clock(x, q, max(batch_ns, 0))
    publish_records(x.records)
    return min(code, OK)
