"""Compiled half of the queue-reactive simulator: one Markov chain over a sparse order book.

Every price tick within `depth` ticks of the reference price is a queue. What happens to it next
depends on its distance from the reference (pooled in *cells*) and on its size (binned in units of
the average event size of its cell): Huang, Lehalle & Rosenbaum 2015, model I. The reference pair is
(R, R + 1): bids stand at R and below, asks at R + 1 and above, so no state is crossed. When the
queue at the reference is empty, each event closes the gap with probability *hazard*: the other side
follows and the reference moves to a next level (*theta*), or the queue is refilled at the old
price. After a move the near queues are redrawn with probability *theta_reinit*, and for some
messages the next best queue may be taken as a whole (*cascade*, which is not in the paper).

Entry points: `start` (first book and its snapshot), `run` (whole messages into an event buffer).

Invariants: integer arithmetic decides everything. Rates are integers (millionths of an event per
second), random numbers are xoshiro128++ on 32-bit words kept in int64, tables are looked up, and no
function of libm is called; so the same seed gives the same bytes on every machine, compiled or not.
Sizes are in lots.

Known limits: one symbol per state; orders have no identity; memory of an order's age is not kept.
"""

import numpy as np

from tickrt.compile.codes import BATCH_END, BUY, CLEAR, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT, TRADE
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.simulation.queue_kernels import (
    ASK_TOUCHED,
    BATCH,
    BID_TOUCHED,
    CASCADE,
    FAST,
    HAZARD,
    LEVEL_KINDS,
    LOCAL_NOW,
    MOVES,
    NOW,
    PERSIST,
    PRESSURE,
    REFERENCE,
    SLOW,
    THETA,
    THETA_REINIT,
    at,
    below,
    between,
    draw,
    empty_tick,
    pick,
    put,
    redraw,
    shift,
    touch,
)

MORE, LESS, DELETE, TOUCH, MARKET = range(LEVEL_KINDS)  # what happens to a level that is not empty
SWEEP_MAX = 8  # levels that one market order may take
FILLS_MAX = 24  # trade messages per level of one market order
EVENTS_MAX = 512  # depth changes in one message
SEEN = EXCH | LOCAL  # by the exchange side of a backtest and by us


@kernel_internal
def _next_level(state, params, side, d0):
    """Distance of the first level of a side from `d0` on, or the depth if there is none."""
    depth = len(params.cell)
    mask = state.lots.shape[1] - 1
    for d in range(d0, depth):
        if state.lots[side, at(state, side, d) & mask] > 0:
            return d
    return depth


@kernel_internal
def _close_gap(state, params, side):
    """The reference queue of `side` is empty: the other side follows, or this one comes back."""
    depth = len(params.cell)
    jump = _next_level(state, params, side, 0)
    free = int(state.scalar[REFERENCE]) > 4 * depth or side == 1  # never walk to price zero
    if draw(state.rng) >= params.chance[THETA] or jump >= depth // 2 or not free:
        tick = at(state, side, 0)
        put(state, params, side, tick, pick(state.rng, params.refill_size))
        return
    aim = pick(state.rng, params.jump)
    for _ in range(depth):  # quotes on the way go; the level nearest to the aim is the next best
        behind = _next_level(state, params, side, jump + 1)
        if behind >= depth // 2 or behind + jump > 2 * aim:
            break
        put(state, params, side, at(state, side, jump), 0)
        jump = behind
    shift(state, params, jump if side == 1 else -jump)
    state.scalar[MOVES] += 1
    state.scalar[PRESSURE] = 1 + side
    tick = at(state, 1 - side, jump)  # the best queue that the price leaves behind
    lots = int(state.lots[1 - side, tick & (state.lots.shape[1] - 1)])
    if lots > 0:
        part = pick(state.rng, params.left)
        put(state, params, 1 - side, tick, (part * lots + 500) // 1000)
    put(state, params, 1 - side, at(state, 1 - side, 0), pick(state.rng, params.follow_size))
    if draw(state.rng) < params.chance[THETA_REINIT]:
        for s in range(2):
            put(state, params, s, at(state, s, 0), pick(state.rng, params.rest_size[0]))
            for c in range(1, int(params.knob[0])):
                for d in range(int(params.edge[c]), int(params.edge[c + 1])):
                    redraw(state, params, s, at(state, s, d), c)


@kernel_internal
def _emit(params, out, n, ev, exch_ts, local_ts, tick, lots):
    out[n]["ev"] = ev
    out[n]["exch_ts"] = exch_ts
    out[n]["local_ts"] = local_ts
    out[n]["px"] = tick / params.unit[0]
    out[n]["qty"] = lots / params.unit[1]
    out[n]["order_id"] = 0
    out[n]["ival"] = 0
    out[n]["fval"] = 0.0
    return n + 1


@kernel_internal
def _arrive(state, params, exch_ts):
    """When the message sent at `exch_ts` arrives; messages do not overtake."""
    local = max(exch_ts + between(state.rng, params.latency_ns), int(state.scalar[LOCAL_NOW]))
    state.scalar[LOCAL_NOW] = local
    return local


@kernel_internal
def _market(state, params, side, part, ts, out, n):
    """A market order takes `part` thousandths of the best queue, and what is behind it."""
    mask = state.lots.shape[1] - 1
    best = int(state.lots[side, at(state, side, 0) & mask])
    left = max(1, (part * best + 500) // 1000)
    if part < 1000:  # the queue outlives it; a last lot is renewed at once
        left = max(1, min(left, best - 1))
    ev = TRADE | SEEN | BATCH_END | (BUY if side == 1 else SELL)
    d = 0
    for _ in range(SWEEP_MAX):
        while d < len(params.cell) and state.lots[side, at(state, side, d) & mask] == 0:
            d += 1
        if left == 0 or d == len(params.cell):
            break
        tick = at(state, side, d)
        lots = int(state.lots[side, tick & mask])
        take = min(left, lots)
        left -= take
        put(state, params, side, tick, max(lots - take, 1 if part < 1000 else 0))
        fills = min(pick(state.rng, params.fills), take)
        for i in range(fills, 0, -1):
            fill = take if i == 1 else 1 + below(state.rng, take - i + 1)
            take -= fill
            local = _arrive(state, params, ts)
            n = _emit(params, out, n, ev, ts, local, tick, fill)
    return n


@kernel_internal
def _level_event(state, params, side, c, u, ts, out, n):
    """Something happens to a level of the cell that is not empty; `u` says which and what."""
    bins = params.rate.shape[1]
    b = 0
    while b < bins - 1 and u >= state.count[side, c, b] * params.level_rate[c, b]:
        u -= int(state.count[side, c, b] * params.level_rate[c, b])
        b += 1
    u %= int(params.level_rate[c, b])
    kind = 0
    while u >= params.rate[c, b, kind]:
        u -= int(params.rate[c, b, kind])
        kind += 1
    width = int(params.edge[c + 1] - params.edge[c])
    base = bins * int(params.edge[c]) + b * width
    tick = int(state.members[side, base + below(state.rng, int(state.count[side, c, b]))])
    lots = int(state.lots[side, tick & (state.lots.shape[1] - 1)])
    if kind == MARKET:
        part = pick(state.rng, params.market_part[b])
        return _market(state, params, side, part, ts, out, n)
    if kind == MORE:
        table = params.best_more[b] if c == 0 else params.more_size[c]
        lots += pick(state.rng, table)
    elif kind == LESS:
        lots -= min(
            lots - 1, max(1, (pick(state.rng, params.less_part[min(c, 1), b]) * lots + 500) // 1000)
        )
    elif kind == DELETE:
        lots = 0
    put(state, params, side, tick, lots)
    return n


@kernel_internal
def _step(state, params, ts, out, n):
    """One event of the chain."""
    mask = state.lots.shape[1] - 1
    for side in range(2):
        if (
            state.lots[side, at(state, side, 0) & mask] == 0
            and draw(state.rng) < params.chance[HAZARD]
        ):
            _close_gap(state, params, side)
            return n
    bids = int(state.total[0])
    u = ((draw(state.rng) >> 1) << 32 | draw(state.rng)) % (bids + int(state.total[1]))
    side = 0
    if u >= bids:
        u -= bids
        side = 1
    c = 0
    while u >= state.cell_rate[side, c]:
        u -= int(state.cell_rate[side, c])
        c += 1
    empty = int(params.edge[c + 1] - params.edge[c] - state.in_cell[side, c])
    appear = empty * int(params.new[c])
    blink = empty * int(params.blink[c])
    if u < appear:
        tick = empty_tick(state, params, side, c)
        put(state, params, side, tick, pick(state.rng, params.new_size[c]))
        return n
    if u < appear + blink:
        touch(state, side, empty_tick(state, params, side, c))
        return n
    return _level_event(state, params, side, c, u - appear - blink, ts, out, n)


@kernel_internal
def _next_message(state, params):
    """Size and gap of the next depth message: its class depends on the recent activity."""
    row = 0
    while row < params.next_size.shape[0] - 1 and (state.scalar[FAST] > params.fast_edge[row]):
        row += 1
    column = 0
    while column < params.next_size.shape[1] - 1 and (
        state.scalar[SLOW] > params.slow_edge[column]
    ):
        column += 1
    u = draw(state.rng)
    size = 0
    while size < params.next_size.shape[2] - 1 and u >= params.next_size[row, column, size]:
        size += 1
    state.scalar[FAST] += ((size << 16) - int(state.scalar[FAST])) >> int(params.knob[1])
    state.scalar[SLOW] += ((size << 16) - int(state.scalar[SLOW])) >> int(params.knob[2])
    return pick(state.rng, params.batch_size[size]), between(state.rng, params.gap_ns[size])


@kernel_internal
def _message(state, params, out, n):
    """The touched levels as one depth message: deletions first, so that no prefix is crossed."""
    ts = int(state.scalar[NOW])
    mask = state.lots.shape[1] - 1
    first = n
    local = _arrive(state, params, ts)
    for deletions in range(1, -1, -1):
        for side in range(2):
            flag = BUY if side == 0 else SELL
            for i in range(int(state.scalar[BID_TOUCHED + side])):
                tick = int(state.touched[side, i])
                lots = int(state.lots[side, tick & mask])
                if (lots == 0) == (deletions == 1):
                    n = _emit(params, out, n, DEPTH | SEEN | flag, ts, local, tick, lots)
    if n > first:
        out[n - 1]["ev"] = np.int64(out[n - 1]["ev"]) | BATCH_END
    return n


@kernel_internal
def _clear_touched(state):
    state.scalar[BID_TOUCHED] = 0
    state.scalar[ASK_TOUCHED] = 0
    state.scalar[BATCH] += 1


@kernel
def start(states, tables, out):
    """Draw the first book; write CLEAR and SNAPSHOT as one message. Returns the events written."""
    state = states[0]
    params = tables[0]
    for c in range(len(params.new)):
        width = int(params.edge[c + 1] - params.edge[c])
        for side in range(2):
            state.cell_rate[side, c] = width * (int(params.new[c]) + int(params.blink[c]))
            state.total[side] += state.cell_rate[side, c]
    _clear_touched(state)
    for side in range(2):
        put(state, params, side, at(state, side, 0), pick(state.rng, params.rest_size[0]))
        for d in range(1, len(params.cell)):
            redraw(state, params, side, at(state, side, d), int(params.cell[d]))
    ts = int(state.scalar[NOW])
    local = _arrive(state, params, ts)
    n = _emit(params, out, 0, CLEAR | SEEN | BUY, ts, local, 0, 0)
    n = _emit(params, out, n, CLEAR | SEEN | SELL, ts, local, 0, 0)
    for side in range(2):
        flag = BUY if side == 0 else SELL
        for d in range(len(params.cell)):
            tick = at(state, side, d)
            lots = int(state.lots[side, tick & (state.lots.shape[1] - 1)])
            if lots > 0:
                n = _emit(params, out, n, SNAPSHOT | SEEN | flag, ts, local, tick, lots)
    out[n - 1]["ev"] = np.int64(out[n - 1]["ev"]) | BATCH_END
    _clear_touched(state)
    return n


@kernel_internal
def _press_on(state, params, ts, out, n):
    """After a move, market orders may keep coming: they take the next best queue as a whole."""
    side = int(state.scalar[PRESSURE]) - 1
    if side < 0:
        return n
    mask = state.lots.shape[1] - 1
    if draw(state.rng) < params.chance[CASCADE]:
        if state.lots[side, at(state, side, 0) & mask] > 0:
            n = _market(state, params, side, 1000, ts, out, n)
    if draw(state.rng) >= params.chance[PERSIST]:
        state.scalar[PRESSURE] = 0
    return n


@kernel
def run(states, tables, out, n, stop_events, stop_ts):
    """Write whole messages behind the first `n` events, as far as the buffer safely takes them.

    Ends when `stop_events` are written, when the next message would be after `stop_ts` (exchange
    time), or when the buffer might not hold another message. Returns the events in the buffer.
    """
    state = states[0]
    params = tables[0]
    room = len(out) - 2 * state.lots.shape[1] - EVENTS_MAX * SWEEP_MAX * FILLS_MAX
    while n < stop_events and n < room:
        size, gap = _next_message(state, params)
        before = int(state.scalar[NOW])
        if before + gap > stop_ts:
            state.scalar[NOW] = stop_ts
            break
        n = _press_on(state, params, before, out, n)
        steps = 0
        limit = min(4 * size, EVENTS_MAX)
        while steps < limit and (state.scalar[BID_TOUCHED] + state.scalar[ASK_TOUCHED] < size):
            steps += 1
            ts = before + gap * min(steps, size) // (size + 1)
            n = _step(state, params, ts, out, n)
        state.scalar[NOW] = before + gap
        n = _message(state, params, out, n)
        _clear_touched(state)
    return n
