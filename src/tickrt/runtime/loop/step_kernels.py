"""From a complete batch to orders: the part of the loop that live trading and backtests share.

Entry points: `take_batch` (events → book), `step` (row → engine → policy → risk → outbox),
`advance` (off-path). `x` is a `runtime.state.Loop`; `s` a symbol, `k` a stream, `e` an engine, `p`
a strategy. Market times are in ns, clocks in ticks of `intrinsics.clock`.
"""

import math

from tickrt.compile.codes import (
    BATCH_END,
    BOOK_BAD_EVENT,
    CANCEL,
    CLEAR,
    ENGINE_NOT_FINITE,
    ENGINE_TIMEOUT,
    IDLE,
    KIND_MASK,
    LOCAL,
    MODE_FALLBACK,
    MODE_HALTED,
    MODE_LIVE,
    MODE_SHADOW,
    OK,
    PENDING,
    RING_FULL,
)
from tickrt.compile.intrinsics import (
    call1,
    call2,
    call3,
    clock,
    load_acquire,
    load_f32,
    pause,
    store_release,
)
from tickrt.compile.jit import inline_kernel, kernel
from tickrt.execution.kernels import on_sent
from tickrt.feature.kernels import make_row, on_event, reset
from tickrt.market.kernels import NO_ASK, NO_BID, apply_event, best, check
from tickrt.observe.kernels import record
from tickrt.risk.kernels import check_intent, check_loss
from tickrt.strategy.kernels import decide, equity, fallback_signal

# runtime.state.STAGES
(TICK_TO_ORDER, BOOK, FEATURES, ENGINE, DECISION, TICK_TO_DECISION, QUEUED, ADVANCE, WAIT) = (
    0, 1, 2, 3, 4, 5, 6, 7, 8)  # fmt: skip

# runtime.state.COUNTERS
(CURSOR, EVENTS, BATCHES, ROWS, SIGNALS, INTENTS, ORDERS, CANCELS, FILLS, FAULTS, FALLBACKS, LOST,
 ERROR, ERROR_EVENT, OPEN, STARTED, LAST_TS, DECISIONS, LOGGED, ERROR_SYMBOL,
 ADVANCED, WAITED) = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)  # fmt: skip

# runtime.handle.HANDLE_COLUMNS
SUBMIT, POLL, ADVANCE_FN, RESET_FN, CTX, OUTPUT = 0, 1, 2, 3, 4, 6

HEALTHY_NEEDED, PAPER = 0, 1  # columns of Loop.settings


@kernel
def fail(x, code, q, s):
    """Note the error that stops the loop, at event number `q`."""
    x.counters[ERROR] = code
    x.counters[ERROR_EVENT] = q
    x.counters[ERROR_SYMBOL] = s
    return code


@kernel
def restart_engines(x, k):
    """The engines of stream `k` forget their states."""
    for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
        call1(x.engines.table[e, RESET_FN], x.engines.table[e, CTX])


@kernel
def restart(x, s):
    """Symbol `s` begins anew: no window may hold rows from before."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        reset(x.streams, k)
        restart_engines(x, k)


@inline_kernel
def apply(x, s, ev, px, qty, ts_ns):
    """One event of symbol `s`: the book first, then what the features accumulate."""
    code = apply_event(x.book, s, ev, px, qty, ts_ns)
    if code < 0:
        return code
    if ev & KIND_MASK == CLEAR:
        restart(x, s)
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        on_event(x.streams, k, x.book, s, ev, px, qty, ts_ns)
    return OK


@kernel
def take_batch(events, mask, q, end, x):
    """Apply events from number `q`, at most up to `end`, until their batch is complete.

    Returns (next q, symbol): symbol −1 when the batch is not complete yet, −2 on an error, which
    is in the counters then.
    """
    c = x.counters
    symbols = len(x.book.inv_tick)
    while q < end:
        event = events[q & mask]
        ev = int(event["ev"])
        q += 1
        if not ev & LOCAL:
            continue
        s = int(event["ival"])
        if not 0 <= s < symbols:
            fail(x, BOOK_BAD_EVENT, q - 1, s)
            return q, -2
        if c[OPEN] == 0:
            c[OPEN] = 1
            c[STARTED] = clock()
        ts_ns = event["local_ts"]
        c[LAST_TS] = ts_ns
        code = apply(x, s, ev, event["px"], event["qty"], ts_ns)
        c[EVENTS] += 1
        if code >= 0 and ev & BATCH_END:
            code = check(x.book, s)
        if code < 0:
            fail(x, code, q - 1, s)
            return q, -2
        if ev & BATCH_END:
            c[OPEN] = 0
            c[BATCHES] += 1
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
        x.counters[ROWS] += seq > 0
        if before > 0 and x.streams.count[k] == 0:  # a side of the book is empty
            restart_engines(x, k)
    return found


@kernel
def start(x, s):
    """Start every engine of symbol `s` that has a new row and a complete window."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.fresh[k]
        ready = seq > 0 and x.streams.count[k] >= x.streams.window[k]
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            code = seq if seq < 0 else IDLE  # a row that cannot be made is its engines' fault
            if ready:
                code = call3(x.engines.table[e, SUBMIT], x.engines.table[e, CTX], seq, 1)
            x.engines.code[e] = code


@kernel
def finish(x, e, seq, started):
    """Wait for engine `e`'s result on row `seq`; its Code.

    A result that came later than its deadline after `started` is a fault, also from an engine that
    computed it on this very thread: the book that it would trade on has moved on since.
    """
    code = x.engines.code[e]
    if code < 0:
        return code
    poll, ctx = x.engines.table[e, POLL], x.engines.table[e, CTX]
    code = call2(poll, ctx, seq)
    while code == PENDING:
        if clock() - started > x.engines.deadline[e]:
            return ENGINE_TIMEOUT
        pause()
        code = call2(poll, ctx, seq)
    if code < 0:
        return code
    if clock() - started > x.engines.deadline[e]:
        return ENGINE_TIMEOUT
    out = x.engines.table[e, OUTPUT]
    total = load_f32(out) + load_f32(out + 4) + load_f32(out + 8)
    return OK if math.isfinite(total) else ENGINE_NOT_FINITE


@kernel
def publish(x, i, ready):
    """Put intent `i` of the scratch into the outbox; the order is readable by the gateway then."""
    address = x.outbox.address[0]
    head = x.outbox.counts[0]
    if head - load_acquire(address + 64) >= len(x.outbox.intents):
        return RING_FULL
    x.outbox.intents[head & (len(x.outbox.intents) - 1)] = x.scratch[i]
    store_release(address, head + 1)
    record(x.hist, TICK_TO_ORDER, clock() - ready)
    return OK


@kernel
def log_intent(x, i):
    """Put intent `i` of the scratch on the tape."""
    n = x.counters[LOGGED]
    if n < len(x.tape.intents):
        x.tape.intents[n] = x.scratch[i]
        x.counters[LOGGED] = n + 1
    else:
        x.counters[LOST] += 1


@kernel
def log_decision(x, p, s, seq, ts_ns, code, down, flat, up, wanted, position):
    """Put a decision on the tape."""
    n = x.counters[DECISIONS]
    if n >= len(x.tape.decisions):
        x.counters[LOST] += 1
        return
    bid, _, ask, _ = best(x.book, s)
    mid2 = 0 if bid == NO_BID or ask == NO_ASK else bid + ask
    r = x.tape.decisions[n]
    r["ts_ns"] = ts_ns
    r["seq"] = seq
    r["mid2_tick"] = mid2
    r["p_down"] = down
    r["p_flat"] = flat
    r["p_up"] = up
    r["code"] = code
    r["position"] = position
    r["equity"] = equity(x.strategies, p, 0.5 * mid2 / x.book.inv_tick[s])
    r["strategy"] = p
    r["symbol"] = s
    r["mode"] = x.strategies.mode[p]
    r["intents"] = wanted
    x.counters[DECISIONS] = n + 1


@kernel
def choose_mode(x, p, code):
    """The mode of strategy `p` after a result: a fault sends it to its fallback at once."""
    st = x.strategies
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
    return st.mode[p]


@kernel
def act(x, p, s, seq, code, down, flat, up, ts_ns, event_ts_ns, ready):
    """Strategy `p` answers a signal: policy → risk → outbox. Returns a Code."""
    bid, _, ask, _ = best(x.book, s)
    check_loss(x.risk, p, x.strategies, bid, ask)  # halts a loser that does not trade, too
    mode = choose_mode(x, p, code)
    position = x.strategies.position[p]
    if mode == MODE_FALLBACK:
        down, flat, up = fallback_signal(x.strategies, p, x.book, s)
        x.counters[FALLBACKS] += 1
    wanted = 0
    if code >= 0 or mode == MODE_FALLBACK or mode == MODE_HALTED:
        wanted = decide(x.strategies, p, x.book, s, x.orders, down, flat, up, seq, ts_ns, x.scratch)
    x.counters[INTENTS] += wanted
    result = OK
    for i in range(wanted):
        reason = check_intent(
            x.risk, p, x.scratch, i, x.book, s, x.strategies, x.orders, ts_ns, event_ts_ns
        )
        if reason == 0 and mode != MODE_SHADOW and on_sent(x.orders, p, x.scratch, i) >= 0:
            result = min(result, publish(x, i, ready))
            cancel = int(x.scratch[i]["kind"]) == CANCEL
            x.counters[CANCELS if cancel else ORDERS] += 1
    for i in range(wanted):
        log_intent(x, i)
    log_decision(x, p, s, seq, ts_ns, code, down, flat, up, wanted, position)
    return result


@kernel
def step(x, s, ts_ns, event_ts_ns, ready):
    """A complete batch of symbol `s`: row → engine → policy → risk → orders in the outbox.

    Args: `ts_ns` is the local time of the batch, `event_ts_ns` the exchange's, `ready` the clock
    when the batch became readable. Returns a Code.
    """
    result = OK
    before = clock()
    if make_rows(x, s, ts_ns) == 0:
        return result
    now = clock()
    record(x.hist, FEATURES, now - before)
    submitted = now
    start(x, s)
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.streams.seq[k]
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            if x.engines.code[e] == IDLE:
                continue
            before = now
            code = finish(x, e, seq, submitted)
            x.engines.code[e] = code
            out = x.engines.table[e, OUTPUT]
            down, flat, up = load_f32(out), load_f32(out + 4), load_f32(out + 8)
            now = clock()
            record(x.hist, ENGINE, now - before)
            x.counters[SIGNALS if code >= 0 else FAULTS] += 1
            for p in range(x.wiring.strategies[e], x.wiring.strategies[e + 1]):
                done = act(x, p, s, seq, code, down, flat, up, ts_ns, event_ts_ns, ready)
                result = min(result, done)
            before = now
            now = clock()
            record(x.hist, DECISION, now - before)
            record(x.hist, TICK_TO_DECISION, now - ready)
    return result


@kernel
def advance(x, s):
    """After the orders are out: every engine of symbol `s` prepares for its next row."""
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        seq = x.fresh[k]
        if seq <= 0:
            continue
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            call2(x.engines.table[e, ADVANCE_FN], x.engines.table[e, CTX], seq)
