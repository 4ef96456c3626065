"""The backtest's loop: the session's own step kernel, with hftbacktest as the venue.

Entry point: `replay(events, loop, venue, time)`. In the pieces of it `x` is a `runtime.state.Loop`,
`v` a `venue.Venue`, `c` a `run.Clock`. Three times are kept apart, all in ns of local time:

    batch   when the batch was received         busy    until when the loop is occupied by what
    start   = max(batch, busy)                          came before it (inference takes time)

At `start` the reports of our orders are read and the batch is applied; the engine's time is
charged; at `start + charge` what it decided is submitted. So a slow engine sees stale books and
falls behind, as it would live.

It ends with the venue's data: what would be decided on its last batch, or after it, is not.

Invariant: with the same events, engine outputs and charged times the orders are the same, byte by
byte.
"""

import numpy as np

from tickrt.compile.by_ref import by_ref
from tickrt.compile.codes import (
    ACK,
    BATCH_END,
    CANCEL,
    CANCEL_ACK,
    CANCEL_REJECT,
    EXPIRE,
    LOCAL,
    LOT,
    PARTIAL_FILL,
    PENDING_CANCEL,
    PENDING_NEW,
    REJECT,
    TICK,
    VENUE_FAILED,
)
from tickrt.compile.intrinsics import call1, call2, call4, call_order, clock, load_f64, load_i64
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.execution.kernels import find_order, on_report, record_fill
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.runtime.loop.step_kernels import (
    CURSOR,
    ERROR,
    FAULTS,
    FILLS,
    SIGNALS,
    advance,
    fail,
    step,
    take_batch,
)
from tickrt.strategy.kernels import equity

# venue.CALLS, venue.Venue.times, run.Clock.state (a test holds them equal).
ELAPSE, NOW, BUY_ORDER, SELL_ORDER, CANCEL_ORDER, ORDERS, CLEAR_INACTIVE = 0, 1, 2, 3, 4, 5, 6
CALLS_USED = (ELAPSE, NOW, BUY_ORDER, SELL_ORDER, CANCEL_ORDER, ORDERS, CLEAR_INACTIVE)
TIME, ENDED, VENUE_ERROR, REFUSED = 0, 1, 2, 3
BUSY, CHARGED, NEXT_MARK, MARKS = 0, 1, 2, 3
SECOND = 1_000_000_000

# hftbacktest.order: places in its order record, its status and time-in-force numbers.
O_LEAVES, O_EXEC_TICK, O_FLAGS = 8, 24, 88
S_NEW, S_EXPIRED, S_CANCELED, S_PARTIAL, S_REJECTED = 1, 2, 4, 5, 6


@kernel_internal
def go_to(v, ts_ns):
    """Let the venue's time pass until `ts_ns`. Returns 0, or VENUE_FAILED."""
    if v.times[ENDED] != 0 or ts_ns <= v.times[TIME]:
        return 0
    code = call2(v.calls[ELAPSE], v.pointer[0], ts_ns - v.times[TIME])
    v.times[TIME] = ts_ns
    if code == 1:
        v.times[ENDED] = 1
    elif code != 0:
        v.times[VENUE_ERROR] = code
        return VENUE_FAILED
    return 0


@kernel_internal
def take_fill(x, v, p, c, order, new, maker, ts_ns):
    """Book `new` lots of the order in slot `c` that the venue has filled."""
    st = x.strategies
    order_id, side = x.orders.order_id[p, c], x.orders.side[p, c]
    px = load_i64(order + O_EXEC_TICK)
    fees = st.fees[p]
    code = on_report(x.orders, st, p, order_id, PARTIAL_FILL, px, new, maker)
    fee = st.fees[p] - fees
    bid, _, ask, _ = best(x.book, st.symbol[p])
    mid2 = 0 if bid == NO_BID or ask == NO_ASK else bid + ask
    x.counters[FILLS] = record_fill(
        st, p, x.tape.fills, x.counters[FILLS], ts_ns, order_id, side, px, new, maker, fee, mid2
    )
    return code


@kernel_internal
def end_event(status):
    """The order event for a final status of hftbacktest's; 0 while the order is live."""
    if status == S_EXPIRED:
        return EXPIRE
    if status == S_CANCELED:
        return CANCEL_ACK
    return REJECT if status == S_REJECTED else 0


@kernel_internal
def read_order(x, v, p, c, ts_ns):
    """Bring the order in slot `c` up to what the venue has reported. Returns a Code."""
    asset = x.strategies.symbol[p]
    orders, order_id = x.orders, x.orders.order_id[p, c]
    order = call2(v.get[0], call2(v.calls[ORDERS], v.pointer[0], asset), order_id)
    if order == 0:
        return 0
    flags = load_i64(order + O_FLAGS)
    maker, request, status = flags & 1, (flags >> 16) & 0xFF, (flags >> 24) & 0xFF
    code = 0
    if orders.state[p, c] == PENDING_NEW and (status == S_NEW or status == S_PARTIAL):
        code = on_report(orders, x.strategies, p, order_id, ACK, 0, 0, 0)
    leaves = int(load_f64(order + O_LEAVES) / x.strategies.instrument[p, LOT] + 0.5)
    new = orders.qty_lots[p, c] - leaves - orders.filled[p, c]
    if new > 0:
        code = min(code, take_fill(x, v, p, c, order, new, maker, ts_ns))
    ended = end_event(status)
    if ended != 0 and PENDING_NEW <= orders.state[p, c] <= PENDING_CANCEL:
        code = min(code, on_report(orders, x.strategies, p, order_id, ended, 0, 0, 0))
    if orders.state[p, c] == PENDING_CANCEL and request == 0:
        if v.cancel_sent[p, c] != 0:
            v.cancel_sent[p, c] = 0
            code = min(code, on_report(orders, x.strategies, p, order_id, CANCEL_REJECT, 0, 0, 0))
        else:  # it was wanted before the venue had answered the order
            send_cancel(x, v, p, c)
    return code


@kernel_internal
def read_reports(x, v, ts_ns):
    """Bring every live order up to date; drop ended ones at the venue. Returns a Code."""
    code = 0
    for p in range(len(x.strategies.policy)):
        before = x.orders.live[p]
        if before == 0:
            continue
        for c in range(x.orders.state.shape[1]):
            if PENDING_NEW <= x.orders.state[p, c] <= PENDING_CANCEL:
                code = min(code, read_order(x, v, p, c, ts_ns))
        if x.orders.live[p] < before and shares_no_order(x, p):
            call2(v.calls[CLEAR_INACTIVE], v.pointer[0], x.strategies.symbol[p])
    return code


@kernel_internal
def shares_no_order(x, p):
    """No later strategy of the same symbol has reports that are still to be read."""
    for other in range(p + 1, len(x.strategies.policy)):
        if x.strategies.symbol[other] == x.strategies.symbol[p] and x.orders.live[other] != 0:
            return False
    return True


@kernel_internal
def send_cancel(x, v, p, c):
    """Ask the venue to cancel, unless it has not answered the order yet."""
    asset, order_id = x.strategies.symbol[p], x.orders.order_id[p, c]
    order = call2(v.get[0], call2(v.calls[ORDERS], v.pointer[0], asset), order_id)
    if order != 0 and (load_i64(order + O_FLAGS) >> 16) & 0xFF == 0:
        if call4(v.calls[CANCEL_ORDER], v.pointer[0], asset, order_id, 0) == 0:
            v.cancel_sent[p, c] = 1


@kernel_internal
def send_order(x, v, p, c):
    """Submit the order in slot `c`; a refusal ends it at once."""
    st, orders = x.strategies, x.orders
    side = orders.side[p, c]
    tif = orders.tif[p, c]
    code = call_order(
        v.calls[BUY_ORDER if side > 0 else SELL_ORDER],
        v.pointer[0],
        st.symbol[p],
        orders.order_id[p, c],
        orders.px_tick[p, c] * st.instrument[p, TICK],
        (orders.qty_lots[p, c] - v.short_lots[0]) * st.instrument[p, LOT],
        tif if tif == 3 else tif - 1,  # hftbacktest: GTC 0, GTX 1, IOC 3
        0,
        0,
    )
    v.cancel_sent[p, c] = 0
    if code != 0:
        v.times[REFUSED] += 1
        on_report(orders, st, p, orders.order_id[p, c], REJECT, 0, 0, 0)


@kernel_internal
def submit(x, v):
    """Hand what lies in the outbox to the venue."""
    mask = len(x.outbox.intents) - 1
    for i in range(x.outbox.counts[8], x.outbox.counts[0]):
        intent = x.outbox.intents[i & mask]
        p = np.int64(intent["strategy"])  # int() would keep it an int16
        c = find_order(x.orders, p, int(intent["order_id"]))
        if c < 0:
            continue
        if int(intent["kind"]) == CANCEL:
            send_cancel(x, v, p, c)
        else:
            send_order(x, v, p, c)
    x.outbox.counts[8] = x.outbox.counts[0]


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
def play_batch(events, x, v, c, q, batch_ns):
    """One batch: reports, book, step, charge, orders. Returns (next q, Code)."""
    mark_until(x, c, batch_ns)
    start = max(batch_ns, c.state[BUSY])
    code = go_to(v, start)
    if code == 0:
        code = read_reports(x, v, start)
    if code < 0:
        return q, fail(x, code, q, -1)
    q, s = take_batch(events, -1, q, len(events), x)
    if s < 0:
        return q, x.counters[ERROR]
    if v.times[ENDED] != 0:
        return q, 0
    before = x.counters[SIGNALS] + x.counters[FAULTS]
    began = clock()
    code = step(x, s, batch_ns, events[q - 1]["exch_ts"], began)
    took = clock() - began
    inferences = x.counters[SIGNALS] + x.counters[FAULTS] - before
    c.state[BUSY] = start + charge(c, inferences, took)
    if code == 0 and x.outbox.counts[0] != x.outbox.counts[8]:
        code = go_to(v, c.state[BUSY])
        submit(x, v)
    if code < 0:
        return q, fail(x, code, q - 1, s)
    began = clock()
    advance(x, s)
    c.state[BUSY] += int((clock() - began) * c.measure[0])
    return q, 0


@kernel
def replay(events, loop, venue, time):
    """Replay `events` (EVENT_DTYPE, a plain array) until they end or `loop.stop` is set.

    After it `time.marks[:, :time.state[3]]` holds the marks of each second and the last one at the
    end. Returns a Code.
    """
    x, v, c = by_ref(loop), by_ref(venue), by_ref(time)
    v.times[TIME] = 0
    if call2(v.calls[ELAPSE], v.pointer[0], 0) > 1:
        return VENUE_FAILED
    v.times[TIME] = call1(v.calls[NOW], v.pointer[0])
    q, end = x.counters[CURSOR], len(events)
    while x.stop[1] == 0:
        batch_ns = batch_time(events, q, end)
        if batch_ns < 0:
            break
        q, code = play_batch(events, x, v, c, q, batch_ns)
        x.counters[CURSOR] = q
        if code < 0:
            return code
    if c.state[MARKS] < c.marks.shape[1]:
        write_mark(x, c, c.state[MARKS])
        c.state[MARKS] += 1
    return 0
