"""Compiled feature rows: a small interpreted program per stream, one compiled body for all.

Entry points: `on_event` after each event that the book applied, `make_row` when a batch is
complete, `reset` after a gap. `streams.new_streams` builds the state, `streams.Streams` describes
it.

A program is a list of ops (`streams.ops`), one per column group of the spec: its kind, where its
numbers go in the row, how many, and where its parameters are. `make_row` reads the best levels of
the book once, runs the ops into `raw` (float32), normalises, and writes the row into both halves
of the mirrored ring.

The logarithm of a quantity is taken only when the quantity changed:
`logs[k, side, tick % LOG_SLOTS]` holds the last quantity seen there and its logarithm. The key is
the quantity itself, so two prices that share a slot can only cost time, never give a wrong number.

Invariants: no allocation, no exceptions; the same results with and without the JIT.
"""

from __future__ import annotations

import math

import numpy as np

from tickrt.compile.codes import (
    BUY,
    CLEAR,
    COLUMN_NOT_FINITE,
    DEPTH,
    KIND_MASK,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.compile.intrinsics import call3
from tickrt.compile.jit import inline_kernel, kernel, kernel_internal
from tickrt.market.kernels import top_levels

__all__ = ["make_row", "on_event", "reset"]

# Op kinds; `spec.py` maps the names in a spec file onto them.
LEVELS, VOLUME, ORDER_FLOW, IMBALANCE, MICROPRICE, SPREAD, RETURNS, ELAPSED, USER = range(9)
# Columns of `ops`.
KIND, OUT, COUNT, PARAM, FUNCTION, BLOCK, LEVEL_COUNT = range(7)
# Columns of `acc`.
SIGNED, UNSIGNED, DEPTH_EVENTS = range(3)
# Places in a user column's block: result, number of levels, then state and parameters.
RESULT, N_BID, N_ASK, STATE, PARAMS = 0, 1, 2, 8, 24
STATE_SIZE, BLOCK_SIZE = 16, 40
MAX_LEVELS = 128  # columns of `scratch_tick`, `scratch_qty`
LOG_SLOTS = 1024
FLOW_LEVELS = 10  # the deepest order-flow column


@inline_kernel
def on_event(streams, k, book, s, ev, px, qty, ts_ns):
    """Note one event of stream `k`'s symbol; call it after the book applied the event."""
    kind = ev & KIND_MASK
    if kind == TRADE:
        streams.acc[k, UNSIGNED] += qty
        if ev & BUY:
            streams.acc[k, SIGNED] += qty
        elif ev & SELL:
            streams.acc[k, SIGNED] -= qty
    elif kind == DEPTH or kind == SNAPSHOT or kind == CLEAR:
        streams.acc[k, DEPTH_EVENTS] = 1.0


@kernel
def reset(streams, k):
    """Forget what came before a gap: the window is incomplete again, accumulators are zero."""
    streams.count[k] = 0
    for i in range(streams.acc.shape[1]):
        streams.acc[k, i] = 0.0
    for o in range(streams.op_range[k, 0], streams.op_range[k, 1]):
        if streams.ops[o, KIND] == USER:
            block = streams.ops[o, BLOCK]
            for i in range(STATE_SIZE):
                streams.user[block, STATE + i] = 0.0


@kernel_internal
def _pad(ticks, side, count, n, step):
    """Levels that the book does not have: one tick further each, quantity 0."""
    last = ticks[side, count - 1]
    for i in range(count, n):
        last += step
        ticks[side, i] = last


@kernel_internal
def _scaled(x, inv_unit, log_scale):
    """x in its unit; with `log_scale` sign(x)·log(1 + |x|)."""
    v = x * inv_unit
    if log_scale == 0.0:
        return v
    if v < 0.0:
        return -math.log1p(-v)
    return math.log1p(v)


@kernel_internal
def _levels(raw, n, ticks, qtys, logs, changed, mid, inv_unit):
    """n numbers each: bid distance, bid log quantity, ask distance, ask log quantity.

    `raw`, `ticks`, `qtys`, `logs` begin where this stream and column do: an index that is a plain
    loop variable is known not to be negative, so the loops become vector code. Which quantities
    changed is as good as random: they are listed first, without a branch to mispredict.
    """
    bids, asks = raw[:n], raw[2 * n : 3 * n]
    for i in range(n):
        bids[i] = mid - ticks[0, i]
    for i in range(n):
        asks[i] = ticks[1, i] - mid
    for side in range(2):
        out = raw[(2 * side + 1) * n : (2 * side + 2) * n]
        cache = logs[side]
        count = 0
        for i in range(n):
            slot = ticks[side, i] & (LOG_SLOTS - 1)
            out[i] = cache[slot, 1]
            changed[count] = i
            count += int(cache[slot, 0] != qtys[side, i])
        for j in range(count):
            i = changed[j]
            slot, q = ticks[side, i] & (LOG_SLOTS - 1), qtys[side, i]
            cache[slot, 0] = q
            cache[slot, 1] = math.log1p(q * inv_unit)
            out[i] = cache[slot, 1]


@kernel_internal
def _order_flow(raw, out, n, ticks, qtys, before, k, fresh, inv_unit, log_scale):
    """Order-flow imbalance per level since the last row; 0 for the first row after a reset.

    Cont, Kukanov, Stoikov (2014), eq. 3, at level 1; Xu, Gould, Howison (2018) at deeper levels.
    """
    for i in range(n):
        bid, bid_qty = float(ticks[0, i]), qtys[0, i]
        ask, ask_qty = float(ticks[1, i]), qtys[1, i]
        flow = 0.0
        if not fresh:
            if bid >= before[k, 0, 0, i]:
                flow += bid_qty
            if bid <= before[k, 0, 0, i]:
                flow -= before[k, 0, 1, i]
            if ask <= before[k, 1, 0, i]:
                flow -= ask_qty
            if ask >= before[k, 1, 0, i]:
                flow += before[k, 1, 1, i]
        before[k, 0, 0, i] = bid
        before[k, 0, 1, i] = bid_qty
        before[k, 1, 0, i] = ask
        before[k, 1, 1, i] = ask_qty
        raw[out + i] = _scaled(flow, inv_unit, log_scale)


@kernel_internal
def _imbalance(n, qtys):
    """(bid − ask) / (bid + ask) quantity over n levels."""
    bid = 0.0
    ask = 0.0
    for i in range(n):
        bid += qtys[0, i]
        ask += qtys[1, i]
    return (bid - ask) / (bid + ask)


@kernel_internal
def _returns(raw, out, n, params, first, mids, k, seq, count, mid):
    """(mid / mid `lag` rows ago − 1) in basis points; 0 while fewer rows than that were made."""
    mask = mids.shape[1] - 1
    mids[k, seq & mask] = mid
    for i in range(n):
        lag = int(params[first + i])
        value = 0.0
        if count >= lag:
            value = (mid / mids[k, (seq - lag) & mask] - 1.0) * 1e4
        raw[out + i] = value


@kernel_internal
def _user(streams, o, n_bid, n_ask):
    """Call a user's column by its address; NaN in its result slot says that it raised."""
    block = streams.ops[o, BLOCK]
    streams.user[block, RESULT] = np.nan
    streams.user[block, N_BID] = min(n_bid, streams.ops[o, LEVEL_COUNT])
    streams.user[block, N_ASK] = min(n_ask, streams.ops[o, LEVEL_COUNT])
    call3(
        streams.ops[o, FUNCTION],
        streams.addresses[0],
        streams.addresses[1],
        streams.addresses[2] + block * BLOCK_SIZE * 8,
    )
    return streams.user[block, RESULT]


@inline_kernel
def _run(streams, k, n_bid, n_ask, mid, ts_ns):
    """Run stream k's program into `raw`; OK (0), or COLUMN_NOT_FINITE."""
    raw, params = streams.raw, streams.params
    ticks, qtys = streams.scratch_tick, streams.scratch_qty
    count = streams.count[k]
    for o in range(streams.op_range[k, 0], streams.op_range[k, 1]):
        kind = streams.ops[o, KIND]
        out, n, first = streams.ops[o, OUT], streams.ops[o, COUNT], streams.ops[o, PARAM]
        if kind == LEVELS:
            logs, changed = streams.logs[k], streams.changed
            _levels(raw[out:], n, ticks, qtys, logs, changed, mid, params[first])
        elif kind == VOLUME:
            scale, logarithm = params[first], params[first + 1]
            raw[out] = _scaled(streams.acc[k, SIGNED], scale, logarithm)
            raw[out + 1] = _scaled(streams.acc[k, UNSIGNED], scale, logarithm)
        elif kind == ORDER_FLOW:
            scale, logarithm = params[first], params[first + 1]
            _order_flow(raw, out, n, ticks, qtys, streams.before, k, count == 0, scale, logarithm)
        elif kind == IMBALANCE:
            raw[out] = _imbalance(int(params[first]), qtys)
        elif kind == MICROPRICE:
            raw[out] = 0.5 * (ticks[1, 0] - ticks[0, 0]) * _imbalance(1, qtys)
        elif kind == SPREAD:
            raw[out] = ticks[1, 0] - ticks[0, 0]
        elif kind == RETURNS:
            _returns(raw, out, n, params, first, streams.mids, k, streams.seq[k] + 1, count, mid)
        elif kind == ELAPSED:
            elapsed = 0.0
            if count > 0:
                elapsed = math.log1p(max((ts_ns - streams.last_ts[k]) * 1e-6, 0.0))
            raw[out] = elapsed
        else:
            value = _user(streams, o, n_bid, n_ask)
            raw[out] = value
            if not math.isfinite(raw[out]):
                return COLUMN_NOT_FINITE
    return 0


@kernel_internal
def _store(raw, mean, inv_std, clip, row, twin):
    """Normalise `raw`, clip it, and write it into both halves of the ring."""
    for i in range(len(row)):
        value = (raw[i] - mean[i]) * inv_std[i]
        value = value if value < clip else clip
        row[i] = value if value > -clip else -clip
    for i in range(len(row)):
        twin[i] = row[i]


@inline_kernel
def make_row(streams, k, book, s, ts_ns):
    """Complete a batch: make stream k's next row from symbol s's book.

    Returns:
        the row's number (1-based), 0 if the batch makes no row, or COLUMN_NOT_FINITE if a user's
        column raised or returned NaN or infinity (the stream is reset then).
    """
    if streams.on_depth[k] == 1 and streams.acc[k, DEPTH_EVENTS] == 0.0:
        return 0
    depth = streams.depth[k]
    ticks, qtys = streams.scratch_tick, streams.scratch_qty
    n_bid = top_levels(book, s, 0, depth, ticks[0], qtys[0])
    n_ask = top_levels(book, s, 1, depth, ticks[1], qtys[1])
    if n_bid == 0 or n_ask == 0:
        reset(streams, k)
        return 0
    for i in range(n_bid, depth):
        qtys[0, i] = 0.0
    for i in range(n_ask, depth):
        qtys[1, i] = 0.0
    _pad(ticks, 0, n_bid, depth, -1)
    _pad(ticks, 1, n_ask, depth, 1)
    mid = 0.5 * (ticks[0, 0] + ticks[1, 0])
    code = _run(streams, k, n_bid, n_ask, mid, ts_ns)
    if code < 0:
        reset(streams, k)
        return code
    seq = streams.seq[k] + 1
    width, window, norm = streams.width[k], streams.window[k], streams.norm_offset[k]
    first = streams.row_offset[k] + (seq % window) * width
    second = first + window * width
    _store(
        streams.raw,
        streams.mean[norm : norm + width],
        streams.inv_std[norm : norm + width],
        streams.clip[k],
        streams.rows[first : first + width],
        streams.rows[second : second + width],
    )
    streams.seq[k] = seq
    streams.count[k] += 1
    streams.last_ts[k] = ts_ns
    for i in range(streams.acc.shape[1]):
        streams.acc[k, i] = 0.0
    return seq
