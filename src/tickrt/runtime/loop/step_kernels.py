"""From a complete batch to orders: the part of the loop that live trading and backtests share.

Entry points: `take_batch` (events → book), `step` (row → engine → policy → risk → order queue),
`take_reports` (what the gateway says of our orders), `advance` (off-path). `x` is a
`runtime.loop.state.Loop`; `s` a symbol, `k` a stream, `e` an engine, `w` a row of the engine table,
`p` a strategy. Market times are in ns, clocks in ticks of `intrinsics.clock`.
"""

import math

import numpy as np

from tickrt.compile import codes
from tickrt.compile.codes import (
    BAD_TRANSITION,
    BATCH_END,
    BOOK_BAD_EVENT,
    CANCEL,
    CLEAR,
    ENGINE_NOT_FINITE,
    ENGINE_ROWS,
    ENGINE_TIMEOUT,
    FILL,
    IDLE,
    KIND_MASK,
    LOCAL,
    MODE_FALLBACK,
    MODE_HALTED,
    MODE_LIVE,
    MODE_SHADOW,
    OK,
    PARTIAL_FILL,
    PENDING,
    RING_FULL,
)
from tickrt.compile.intrinsics import (
    call1,
    call2,
    call3,
    call4,
    clock,
    load_acquire,
    load_f32,
    load_i64,
    pause,
    store_release,
)
from tickrt.compile.jit import inline_kernel, kernel
from tickrt.execution.kernels import find_order, on_report_at, on_sent
from tickrt.feature.kernels import make_row, on_event, reset
from tickrt.market.deferred_kernels import apply_other, take_levels
from tickrt.market.kernels import best, check
from tickrt.observe.kernels import record
from tickrt.risk.kernels import check_intent, check_loss
from tickrt.runtime.loop.record_kernels import (
    prefetch_records,
    publish_records,
    record_clock,
    record_fill,
    record_intent,
    record_mode,
    record_order,
    record_report,
    record_row,
    record_signal,
)
from tickrt.strategy.kernels import decide, fallback_signal

HEALTHY_NEEDED, WAIT_FOR_RECORDS = 0, 1  # columns of Loop.settings
SECOND = 1_000_000_000


@kernel
def fail(x, code, q, s):
    """Note the error that stops the loop, at event number `q`."""
    x.counters[codes.COUNT_ERROR] = code
    x.counters[codes.COUNT_ERROR_EVENT] = q
    x.counters[codes.COUNT_ERROR_SYMBOL] = s
    return code


@kernel
def restart_engines(x, k):
    """The engines of stream `k` forget their states."""
    for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
        for w in range(e * ENGINE_ROWS, (e + 1) * ENGINE_ROWS):
            if x.engines.table[w, codes.ENGINE_RESET] != 0:
                call1(x.engines.table[w, codes.ENGINE_RESET], x.engines.table[w, codes.ENGINE_CTX])


@kernel
def restart(x, s):
    """Symbol `s` begins anew: no window may hold rows from before."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        reset(x.streams, k)
        restart_engines(x, k)


@inline_kernel
def accumulate(x, s, ev, px, qty, ts_ns):
    """What the features of symbol `s` note of an event that its book has taken."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        on_event(x.streams, k, x.book, s, ev, px, qty, ts_ns)


@inline_kernel
def take_other(x, s, ev, px, qty, ts_ns):
    """One event of symbol `s` that `take_levels` left. A Code."""
    code = apply_other(x.book, x.deferred, s, ev, px, qty, ts_ns)
    if code < 0:
        return code
    if ev & KIND_MASK == CLEAR:
        restart(x, s)
    accumulate(x, s, ev, px, qty, ts_ns)
    return OK


@kernel
def take_batch(events, mask, q, end, x):
    """Apply events from number `q`, at most up to `end`, until their batch is complete.

    What no row of it can see is put off: `settle` the book once its orders are out.

    Returns (next q, symbol): symbol −1 when the batch is not complete yet, −2 on an error, which
    is in the counters then.
    """
    c = x.counters
    symbols = len(x.book.inv_tick)
    while q < end:
        event = events[q & mask]
        if not int(event["ev"]) & LOCAL:
            q += 1
            continue
        s = int(event["ival"])
        if not 0 <= s < symbols:
            fail(x, BOOK_BAD_EVENT, q, s)
            return q + 1, -2
        if c[codes.COUNT_OPEN] == 0:
            c[codes.COUNT_OPEN] = 1
            c[codes.COUNT_STARTED] = clock()
        first, code = q, OK
        q = take_levels(x.book, x.deferred, s, events, mask, q, end)
        if q == first:
            q += 1
            code = take_other(x, s, int(event["ev"]), event["px"], event["qty"], event["local_ts"])
        else:  # of levels the features note only that there were some: the last will do
            event = events[(q - 1) & mask]
            accumulate(x, s, int(event["ev"]), event["px"], event["qty"], event["local_ts"])
        c[codes.COUNT_LAST_TS] = event["local_ts"]
        c[codes.COUNT_EVENTS] += q - first
        complete = int(event["ev"]) & BATCH_END
        if code >= 0 and complete:
            code = check(x.book, s)
        if code < 0:
            fail(x, code, q - 1, s)
            return q, -2
        if complete:
            c[codes.COUNT_OPEN] = 0
            c[codes.COUNT_BATCHES] += 1
            return q, s
    return q, -1


@kernel
def make_rows(x, s, ts_ns):
    """The new row of every stream of symbol `s`: how many streams have one, or a Code instead."""
    found = 0
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        before = x.streams.count[k]
        seq = make_row(x.streams, k, x.book, s, ts_ns)
        x.fresh[k] = seq
        found += seq != 0
        x.counters[codes.COUNT_ROWS] += seq > 0
        if before > 0 and x.streams.count[k] == 0:  # a side of the book is empty
            restart_engines(x, k)
    return found


@kernel
def submit_engines(x, s):
    """Start every engine of symbol `s` that has a new row and a complete window."""
    n = x.engines
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.fresh[k]
        ready = seq > 0 and x.streams.count[k] >= x.streams.window[k]
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            for w in range(e * ENGINE_ROWS, (e + 1) * ENGINE_ROWS):
                n.code[w] = IDLE
            for p in range(x.wiring.strategies[e], x.wiring.strategies[e + 1]):
                w = load_acquire(n.where[0] + 8 * p)
                n.current[p] = w
                if seq < 0:  # a row that cannot be made is its engines' fault
                    n.code[w] = seq
                elif ready and n.code[w] == IDLE:
                    n.code[w] = call3(
                        n.table[w, codes.ENGINE_SUBMIT], n.table[w, codes.ENGINE_CTX], seq, 1
                    )


@kernel
def result_of(x, w, seq, started):
    """The result of row `w` of the engine table on row `seq`, as it is now: its Code.

    PENDING while it may still come: until its deadline after `started`.
    """
    code = x.engines.code[w]
    if code < 0:
        return code
    poll, ctx = x.engines.table[w, codes.ENGINE_POLL], x.engines.table[w, codes.ENGINE_CTX]
    code = call2(poll, ctx, seq)
    if code == PENDING:
        late = clock() - started > x.engines.deadline[w]
        return ENGINE_TIMEOUT if late else PENDING
    return min(code, OK)


@kernel
def read_signal(x, w):
    """The head of row `w` of the engine table: outputs → `x.signal` (down, flat, up).

    Returns OK, or ENGINE_NOT_FINITE where an output is NaN or infinite.
    """
    out, count = x.engines.table[w, codes.ENGINE_OUTPUT], 0
    if x.engines.head[w] == codes.HEAD_PROBABILITIES:
        count = 3
        x.signal[0] = load_f32(out)
        x.signal[1] = load_f32(out + 4)
        x.signal[2] = load_f32(out + 8)
    total = x.signal[0] + x.signal[1] + x.signal[2]
    for i in range(count, x.engines.table[w, codes.ENGINE_N_OUTPUTS]):
        total += load_f32(out + 4 * i)
    return OK if math.isfinite(total) else ENGINE_NOT_FINITE


@kernel
def publish(x, i, ready):
    """Put intent `i` of the scratch into the order queue; the gateway can read it then."""
    queue = x.order_queue
    head = load_i64(queue.published)
    if head - load_acquire(queue.consumed) > queue.mask:
        return RING_FULL
    queue.events[head & queue.mask] = x.scratch[i]
    store_release(queue.published, head + 1)
    now = clock()
    record(x.hist, codes.STAGE_TICK_TO_ORDER, now - ready)
    record_order(x, i, ready, now)
    return OK


@kernel
def choose_mode(x, p, code, seq, ts_ns):
    """The mode of strategy `p` after a result: a fault sends it to its fallback at once."""
    st = x.strategies
    before = st.mode[p]
    if x.risk.halted[p] != 0 or x.risk.killed[0] != 0:
        st.mode[p] = MODE_HALTED
    elif st.mode[p] == MODE_HALTED:  # a person has re-armed it
        st.mode[p] = x.home[p]
    if code < 0:
        st.healthy[p] = 0
        if st.mode[p] == MODE_LIVE:
            st.mode[p] = MODE_FALLBACK
    else:
        st.healthy[p] += 1
        if st.mode[p] == MODE_FALLBACK and st.healthy[p] >= x.settings[HEALTHY_NEEDED]:
            st.mode[p] = MODE_LIVE
    if st.mode[p] != before:
        record_mode(x, p, before, code, seq, ts_ns)
    return st.mode[p]


@kernel
def decide_and_send(x, p, s, seq, code, ts_ns, event_ts_ns, ready):
    """Strategy `p` answers the signal of `x.signal`: policy → risk → order queue. A Code."""
    bid, _, ask, _ = best(x.book, s)
    check_loss(x.risk, p, x.strategies, bid, ask)  # halts a loser that does not trade, too
    mode = choose_mode(x, p, code, seq, ts_ns)
    position = x.strategies.position[p]
    if mode == MODE_FALLBACK:
        fallback_signal(x.strategies, p, x.book, s, x.signal)
        x.counters[codes.COUNT_FALLBACKS] += 1
    wanted = 0
    if code >= 0 or mode == MODE_FALLBACK or mode == MODE_HALTED:
        wanted = decide(x.strategies, p, x.book, s, x.orders, x.signal, seq, ts_ns, x.scratch)
    x.counters[codes.COUNT_INTENTS] += wanted
    result = OK
    for i in range(wanted):
        reason = check_intent(
            x.risk, p, x.scratch, i, x.book, s, x.strategies, x.orders, ts_ns, event_ts_ns
        )
        if reason == 0 and mode != MODE_SHADOW and on_sent(x.orders, p, x.scratch, i) >= 0:
            result = min(result, publish(x, i, ready))
            cancel = int(x.scratch[i]["kind"]) == CANCEL
            x.counters[codes.COUNT_CANCELS if cancel else codes.COUNT_ORDERS] += 1
    for i in range(wanted):
        record_intent(x, i)
    record_signal(x, p, s, seq, ts_ns, code, x.engines.current[p], wanted, position)
    return result


@kernel
def answer_row(x, w, e, s, code, submitted, ts_ns, event_ts_ns, ready):
    """Engine row `w` of engine `e` has the result `code`: every strategy that listens to it.

    A result that came later than its deadline is a fault, also from an engine that computed it on
    this very thread: the book that it would trade on has moved on since.
    """
    before, seq = x.counters[codes.COUNT_STAGE_ENDED], x.streams.seq[x.engines.stream[e]]
    finite = read_signal(x, w)
    now = clock()
    if code >= 0:
        code = ENGINE_TIMEOUT if now - submitted > x.engines.deadline[w] else finite
    x.engines.code[w] = code
    record(x.hist, codes.STAGE_ENGINE, now - before)
    x.counters[codes.COUNT_SIGNALS if code >= 0 else codes.COUNT_FAULTS] += 1
    result = OK
    for p in range(x.wiring.strategies[e], x.wiring.strategies[e + 1]):
        if x.engines.current[p] == w:
            read_signal(x, w)  # again: the fallback of another strategy may stand there
            done = decide_and_send(x, p, s, seq, code, ts_ns, event_ts_ns, ready)
            result = min(result, done)
    after = clock()
    x.counters[codes.COUNT_STAGE_ENDED] = after
    record(x.hist, codes.STAGE_DECISION, after - now)
    record(x.hist, codes.STAGE_TICK_TO_DECISION, after - ready)
    return result


@kernel
def begin_step(x, s, ts_ns, began):
    """The rows of a complete batch, and their engines started: the clock of that, 0 where there is
    no row."""
    if make_rows(x, s, ts_ns) == 0:
        return 0
    submitted = clock()
    x.counters[codes.COUNT_STAGE_ENDED] = submitted
    record(x.hist, codes.STAGE_FEATURES, submitted - began)
    submit_engines(x, s)
    return submitted


@kernel
def answer_engines(x, s, again, submitted, ts_ns, event_ts_ns, ready):
    """Every engine of symbol `s` that has its result now: a slow one holds up nobody else.

    Args: `again`: only those that had none the last time.

    Returns (the worst Code, how many still have none).
    """
    result, waiting = OK, 0
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.streams.seq[k]
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            for w in range(e * ENGINE_ROWS, (e + 1) * ENGINE_ROWS):
                before = x.engines.code[w]
                if before == IDLE or (again and before != PENDING):
                    continue
                code = result_of(x, w, seq, submitted)
                if code == PENDING:
                    x.engines.code[w] = PENDING
                    waiting += 1
                    continue
                done = answer_row(x, w, e, s, code, submitted, ts_ns, event_ts_ns, ready)
                result = min(result, done)
    return result, waiting


@kernel
def await_engines(x, s, submitted, ts_ns, event_ts_ns, ready):
    """Every engine of symbol `s` as its result comes, until all have come. A Code."""
    result, waiting = answer_engines(x, s, False, submitted, ts_ns, event_ts_ns, ready)
    while waiting > 0:
        pause()
        done, waiting = answer_engines(x, s, True, submitted, ts_ns, event_ts_ns, ready)
        result = min(result, done)
    return result


@kernel
def record_rows(x, s, q, ts_ns, event_ts_ns):
    """The rows of symbol `s`, once they were decided on."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        if x.fresh[k] != 0:
            record_row(x, k, s, x.fresh[k], ts_ns, event_ts_ns, q)


@kernel
def step(x, s, q, ts_ns, event_ts_ns, ready, began):
    """A complete batch of symbol `s`: row → engine → policy → risk → orders in the queue.

    Args: `q` is the number of the batch's last event, `ts_ns` its local time, `event_ts_ns` the
    exchange's, `ready` the clock when the batch became readable, `began` that when its book was
    complete. Returns a Code.
    """
    submitted = begin_step(x, s, ts_ns, began)
    if submitted == 0:
        return OK
    result = await_engines(x, s, submitted, ts_ns, event_ts_ns, ready)
    record_rows(x, s, q, ts_ns, event_ts_ns)
    return result


@kernel
def apply_report(x, i, now_ns):
    """Report `i` of the queue: the order, the account, the records. Returns a Code."""
    report = x.report_queue.events[i]
    p, order_id = np.int64(report["strategy"]), int(report["order_id"])
    event, lots = int(report["event"]), int(report["qty_lots"])
    ts_ns = int(report["ts_ns"])
    if ts_ns == 0:
        ts_ns = now_ns
    c = -1
    if 0 <= p < len(x.strategies.policy):
        c = find_order(x.orders, p, order_id)
    if c < 0:
        record_report(x, report, ts_ns, BAD_TRANSITION)
        return BAD_TRANSITION
    fees = x.strategies.fees[p]
    px, maker = int(report["px_tick"]), int(report["maker"])
    code = on_report_at(x.orders, x.strategies, p, c, event, px, lots, maker)
    record_report(x, report, ts_ns, code)
    if event == PARTIAL_FILL or event == FILL:
        x.counters[codes.COUNT_FILLS] += 1
        fee = x.strategies.fees[p] - fees
        record_fill(x, p, report, ts_ns, x.orders.side[p, c], fee)
    return code


@kernel
def take_reports(x, ts_ns):
    """Read every report that the gateway has published. Returns the worst Code."""
    queue = x.report_queue
    q, end = load_i64(queue.consumed), load_acquire(queue.published)
    code = OK
    while q < end:
        code = min(code, apply_report(x, q & queue.mask, ts_ns))
        q += 1
        store_release(queue.consumed, q)
    return code


@kernel
def read_reports(x, ts_ns):
    """Let the gateway say what it knows by `ts_ns`, and read it. Returns a Code."""
    code = OK
    if x.gateway[codes.GATEWAY_READ_REPORTS] != 0:
        code = call2(x.gateway[codes.GATEWAY_READ_REPORTS], x.gateway[codes.GATEWAY_CTX], ts_ns)
    return min(code, take_reports(x, ts_ns))


@kernel
def submit_orders(x, ts_ns):
    """Tell the gateway that orders lie in the queue, where they do. Returns a Code."""
    submit, queue = x.gateway[codes.GATEWAY_SUBMIT], x.order_queue
    if submit == 0 or load_acquire(queue.consumed) == load_i64(queue.published):
        return OK
    return call2(submit, x.gateway[codes.GATEWAY_CTX], ts_ns)


@kernel
def on_batch(x, s, first, end, ts_ns):
    """The gateway sees the batch of events first … end − 1; its answers are read. A Code."""
    code = OK
    if x.gateway[codes.GATEWAY_ON_BATCH] != 0:
        ctx = x.gateway[codes.GATEWAY_CTX]
        code = call4(x.gateway[codes.GATEWAY_ON_BATCH], ctx, s, first, end)
    return min(code, take_reports(x, ts_ns))


@kernel
def advance(x, s):
    """After the orders are out: every engine of symbol `s` prepares for its next row."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.fresh[k]
        if seq <= 0:
            continue
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            for w in range(e * ENGINE_ROWS, (e + 1) * ENGINE_ROWS):
                if x.engines.table[w, codes.ENGINE_ADVANCE] != 0:
                    ctx = x.engines.table[w, codes.ENGINE_CTX]
                    call2(x.engines.table[w, codes.ENGINE_ADVANCE], ctx, seq)


@kernel
def finish_batch(x, q, ts_ns):
    """The batch before event `q` is done: its records can be read, the clocks once a second."""
    c = x.counters
    if ts_ns - c[codes.COUNT_CLOCK_NS] >= SECOND:
        c[codes.COUNT_CLOCK_NS] = ts_ns
        record_clock(x, q, ts_ns)
    publish_records(x.records)
    prefetch_records(x.records)
    c[codes.COUNT_CURSOR] = q
