"""Rows in flight: the loop goes on with other symbols while an engine works on a batch of them.

Entry points: `start` in the place of `step_kernels.step`; `land_ready` whenever there is time,
`make_way` before the next batch is taken, `land_all` at the end; `release` lets the feed go on. `x`
is a `runtime.loop.state.Loop`, `feed` a `memory.ring.FeedView`.

What is ready goes at once and alone, what becomes ready meanwhile goes together: the handle's
`submit` and `poll` see to it. Engines with a `max_batch` of 1 are waited for in `start`.

Invariants: a symbol has one batch in flight; its next one is not begun before that has landed, so
rows, book and orders of a symbol are those of `step`. A row lands within its deadline. Engines of a
lane answer in order, so only the first of each is asked.
"""

from tickrt.compile import codes
from tickrt.compile.codes import ENGINE_ROWS, ENGINE_TIMEOUT, LOCAL, OK, PENDING
from tickrt.compile.intrinsics import call2, clock, load_acquire, load_i64, pause, store_release
from tickrt.compile.jit import kernel
from tickrt.observe.kernels import record
from tickrt.runtime.loop.record_kernels import publish_records, room, wait_for_room
from tickrt.runtime.loop.step_kernels import (
    WAIT_FOR_RECORDS,
    advance,
    answer_row,
    await_engines,
    begin_step,
    on_batch,
    record_rows,
    submit_orders,
)

LAST_EVENT, TS, EVENT_TS, READY, SUBMITTED, SETTLED = 0, 1, 2, 3, 4, 5  # of Flights.batch


@kernel
def release(feed, x, q):
    """Events before `q` are read. The newest is kept while rows are in flight: a gateway that
    answers with the feed takes its time from it when they land."""
    store_release(feed.consumed, q - min(x.flights.total[0], 1))


@kernel
def take_off(x, w, e, s):
    """Row `w` of the engine table will answer later: nobody waits for it here."""
    f, lane = x.flights, x.engines.lane[e]
    x.engines.code[w] = codes.IDLE
    f.queue[lane, f.tail[lane] % f.queue.shape[1]] = w
    f.tail[lane] += 1
    f.left[s] += 1
    f.total[0] += 1


@kernel
def start(x, s, q, ts_ns, event_ts_ns, ready, began):
    """As `step`, but what can answer later is left in flight. A Code."""
    submitted = begin_step(x, s, ts_ns, began)
    if submitted == 0:
        return OK
    batch = x.flights.batch
    batch[s, LAST_EVENT], batch[s, TS], batch[s, EVENT_TS] = q, ts_ns, event_ts_ns
    batch[s, READY], batch[s, SUBMITTED] = ready, submitted
    for k in range(x.wiring.streams[s], x.wiring.streams[s + 1]):
        for e in range(x.wiring.engines[k], x.wiring.engines[k + 1]):
            for w in range(e * ENGINE_ROWS, (e + 1) * ENGINE_ROWS):
                code = x.engines.code[w]
                started = code != codes.IDLE and code >= 0
                if started and x.engines.table[w, codes.ENGINE_MAX_BATCH] > 1:
                    take_off(x, w, e, s)
    result = await_engines(x, s, submitted, ts_ns, event_ts_ns, ready)
    if x.flights.left[s] == 0:
        record_rows(x, s, q, ts_ns, event_ts_ns)
    return result


@kernel
def land(feed, x, w, s, result):
    """Row `w` of the engine table has that result: decide, send, prepare. A Code."""
    f, c = x.flights, x.counters
    ts_ns, event_ts_ns = f.batch[s, TS], f.batch[s, EVENT_TS]
    ready, submitted, now_ns = f.batch[s, READY], f.batch[s, SUBMITTED], c[codes.COUNT_LAST_TS]
    if x.settings[WAIT_FOR_RECORDS] != 0 and not room(x.records):
        wait_for_room(x)
    c[codes.COUNT_STAGE_ENDED] = submitted
    e = w // ENGINE_ROWS
    code = answer_row(x, w, e, s, result, submitted, ts_ns, event_ts_ns, ready)
    f.left[s] -= 1
    f.total[0] -= 1
    code = min(code, submit_orders(x, now_ns))
    if load_acquire(x.order_queue.consumed) != load_i64(x.order_queue.published):
        q = c[codes.COUNT_CURSOR]
        code = min(code, on_batch(x, s, q, q, now_ns))  # a gateway that answers with the feed
    if f.left[s] == 0:
        record_rows(x, s, f.batch[s, LAST_EVENT], ts_ns, event_ts_ns)
        began = clock()
        advance(x, s)
        c[codes.COUNT_ADVANCED] = clock()
        took = f.batch[s, SETTLED] + c[codes.COUNT_ADVANCED] - began
        record(x.hist, codes.STAGE_ADVANCE, took)
    publish_records(x.records)
    release(feed, x, c[codes.COUNT_CURSOR])
    return code


@kernel
def land_lane(feed, x, lane):
    """Every answer of a lane that is here, or too late. A Code."""
    f, result = x.flights, OK
    while f.head[lane] < f.tail[lane]:
        w = f.queue[lane, f.head[lane] % f.queue.shape[1]]
        k = x.engines.stream[w // ENGINE_ROWS]
        s, seq = x.streams.symbol[k], x.streams.seq[k]
        poll, ctx = x.engines.table[w, codes.ENGINE_POLL], x.engines.table[w, codes.ENGINE_CTX]
        code = call2(poll, ctx, seq)
        if code == PENDING:
            if clock() - f.batch[s, SUBMITTED] <= x.engines.deadline[w]:
                break
            code = ENGINE_TIMEOUT
        f.head[lane] += 1
        result = min(result, land(feed, x, w, s, min(code, OK)))
    return result


@kernel
def land_ready(feed, x):
    """Every answer that is here, or too late. A Code."""
    result = OK
    for lane in range(len(x.flights.head)):
        result = min(result, land_lane(feed, x, lane))
    return result


@kernel
def make_way(feed, x, q, end):
    """Before the batch that begins at event `q`: nothing of its symbol is in flight. A Code."""
    result = land_ready(feed, x)
    while q < end and not int(feed.events[q & feed.mask]["ev"]) & LOCAL:
        q += 1
    if q == end:
        return result
    s = int(feed.events[q & feed.mask]["ival"])
    while result >= 0 and 0 <= s < len(x.flights.left) and x.flights.left[s] > 0:
        pause()
        result = min(result, land_ready(feed, x))
    return result


@kernel
def land_all(feed, x):
    """Until nothing is in flight. A Code."""
    result = OK
    while result >= 0 and x.flights.total[0] > 0:
        result = min(result, land_ready(feed, x))
        pause()
    return result
