"""Compiled queues of the simulator: random numbers, levels in lists, the moving reference price.

A level belongs to exactly one list, of its cell (distance from the reference) and its size bin;
each cell's and each side's total rate is kept up to date in integers, so that the next event can be
drawn without summing. The kernels of the chain itself are in `simulator_kernels`.

Entry points: `params_dtype`, `state_dtype`; `draw`, `below`, `pick`, `between`; `put`, `touch`,
`shift`, `redraw`, `empty_tick`, `at`.

Invariants: random numbers are xoshiro128++ on 32-bit words kept in int64, so nothing overflows and
nothing depends on the machine. The lists hold the levels that the ladder holds, no other.

Known limits: the ladder is a ring of `slots` ticks; levels farther than `depth` are dropped.
"""

import numpy as np

from tickrt.compile.jit import kernel_internal

WORD = 0xFFFFFFFF
LEVEL_KINDS = 5
SCALARS = 10
REFERENCE, NOW, LOCAL_NOW, BATCH, FAST, SLOW, MOVES, BID_TOUCHED, ASK_TOUCHED, PRESSURE = range(
    SCALARS
)
CHANCES = 5
HAZARD, THETA, THETA_REINIT, CASCADE, PERSIST = range(CHANCES)


def params_dtype(cells, bins, depth, entries, classes, contexts):
    """One record with the calibration's tables; a quantile table has L entries.

    A record, not a NamedTuple of arrays: it is passed as one address, while every call with a tuple
    counts references of each array in it, which was most of the time.

    Args:
        cells: C.
        bins: B.
        depth: ticks from the reference that have a queue.
        entries: L.
        classes: M size classes of messages.
        contexts: (F, W), classes of fast and slow activity.
    """
    return np.dtype(
        (
            np.record,
            [
                ("edge", "i8", (cells + 1,)),  # ticks from the own side's reference price
                ("cell", "i8", (depth,)),  # cell of a distance
                ("bin_edge", "i8", (cells, bins - 1)),  # lots: bin = number of edges below the size
                ("rate", "i8", (cells, bins, LEVEL_KINDS)),  # 1e-6/s per level
                ("level_rate", "i8", (cells, bins)),  # sum over the kinds
                ("new", "i8", (cells,)),  # 1e-6/s per empty tick: a level appears
                ("blink", "i8", (cells,)),  # the same: one comes and goes within a message
                ("occupied", "i8", (cells,)),  # of 2**32: how often a tick holds a level
                ("rest_size", "i8", (cells, entries)),  # lots: sizes at rest
                ("new_size", "i8", (cells, entries)),  # lots
                ("more_size", "i8", (cells, entries)),  # lots
                ("best_more", "i8", (bins, entries)),  # lots, at the reference price
                (
                    "less_part",
                    "i8",
                    (2, bins, entries),
                ),  # thousandths of the best, of another level
                (
                    "market_part",
                    "i8",
                    (bins, entries),
                ),  # the same; above 1000: takes what is behind
                ("fills", "i8", (entries,)),  # trade messages per level of a market order
                ("follow_size", "i8", (entries,)),  # lots: the new best of the side that follows
                ("refill_size", "i8", (entries,)),  # lots
                ("left", "i8", (entries,)),  # thousandths of the best that the price leaves behind
                ("jump", "i8", (entries,)),  # ticks that the price means to move
                ("chance", "i8", (CHANCES,)),  # of 2**32; see HAZARD…
                ("next_size", "i8", (*contexts, classes)),  # of 2**32, cumulative, by activity
                ("batch_size", "i8", (classes, entries)),  # changes in a message of that class
                ("gap_ns", "i8", (classes, entries + 1)),  # since the last message, ends included
                ("fast_edge", "i8", (contexts[0] - 1,)),  # 16.16 fixed point
                ("slow_edge", "i8", (contexts[1] - 1,)),
                ("latency_ns", "i8", (entries + 1,)),  # ends included
                ("knob", "i8", (3,)),  # near cells, fast shift, slow shift
                ("unit", "f8", (2,)),  # ticks per price unit, lots per quantity unit
            ],
        )
    )


def state_dtype(cells, bins, depth, slots):
    """One record with the chain's state.

    Args:
        cells: C.
        bins: B.
        depth: ticks from the reference that have a queue.
        slots: N, of the ladder; a power of two, at least four times the depth.
    """
    return np.dtype(
        (
            np.record,
            [
                ("rng", "i8", (4,)),  # 32-bit words
                ("scalar", "i8", (SCALARS,)),
                ("total", "i8", (2,)),
                ("cell_rate", "i8", (2, cells)),
                ("in_cell", "i8", (2, cells)),
                ("count", "i8", (2, cells, bins)),
                ("lots", "i8", (2, slots)),
                ("group", "i8", (2, slots)),  # cell * B + bin, or -1
                ("place", "i8", (2, slots)),  # where in its list
                ("members", "i8", (2, bins * depth)),  # ticks; list (c, b): from B*edge + b*width
                ("stamp", "i8", (2, slots)),  # the message that touched the slot last
                ("touched", "i8", (2, slots)),  # ticks of this message
            ],
        )
    )


@kernel_internal
def draw(rng):
    """Next 32-bit word of xoshiro128++ (Blackman & Vigna 2019), in int64 without overflow."""
    s0 = int(rng[0])
    s1 = int(rng[1])
    s2 = int(rng[2])
    s3 = int(rng[3])
    x = (s0 + s3) & WORD
    x = ((((x << 7) & WORD) | (x >> 25)) + s0) & WORD
    t = (s1 << 9) & WORD
    s2 ^= s0
    s3 ^= s1
    rng[0] = s0 ^ s3
    rng[1] = s1 ^ s2
    rng[2] = s2 ^ t
    rng[3] = ((s3 << 11) & WORD) | (s3 >> 21)
    return x


@kernel_internal
def below(rng, n):
    """A number in 0…n-1, n < 2**31."""
    return (draw(rng) * n) >> 32


@kernel_internal
def pick(rng, table):
    """One entry of a quantile table."""
    return int(table[below(rng, len(table))])


@kernel_internal
def between(rng, table):
    """A value between two neighbours of a quantile table with its ends."""
    i = below(rng, len(table) - 1)
    low = int(table[i])
    return low + below(rng, int(table[i + 1]) - low + 1)


@kernel_internal
def _join(state, params, side, slot, tick, c, b):
    bins = params.rate.shape[1]
    width = int(params.edge[c + 1] - params.edge[c])
    n = int(state.count[side, c, b])
    state.members[side, bins * int(params.edge[c]) + b * width + n] = tick
    state.place[side, slot] = n
    state.group[side, slot] = c * bins + b
    state.count[side, c, b] = n + 1
    state.in_cell[side, c] += 1
    change = int(params.level_rate[c, b]) - int(params.new[c]) - int(params.blink[c])
    state.cell_rate[side, c] += change
    state.total[side] += change


@kernel_internal
def _leave(state, params, side, slot):
    bins = params.rate.shape[1]
    group = int(state.group[side, slot])
    c = group // bins
    b = group % bins
    mask = state.lots.shape[1] - 1
    base = bins * int(params.edge[c]) + b * int(params.edge[c + 1] - params.edge[c])
    n = int(state.count[side, c, b]) - 1
    hole = int(state.place[side, slot])
    moved = int(state.members[side, base + n])
    state.members[side, base + hole] = moved
    state.place[side, moved & mask] = hole
    state.group[side, slot] = -1
    state.count[side, c, b] = n
    state.in_cell[side, c] -= 1
    change = int(params.new[c]) + int(params.blink[c]) - int(params.level_rate[c, b])
    state.cell_rate[side, c] += change
    state.total[side] += change


@kernel_internal
def distance(state, side, tick):
    """Ticks from the own side's reference price."""
    if side == 0:
        return int(state.scalar[REFERENCE]) - tick
    return tick - int(state.scalar[REFERENCE]) - 1


@kernel_internal
def at(state, side, d):
    """The tick at a distance from the own side's reference price."""
    if side == 0:
        return int(state.scalar[REFERENCE]) - d
    return int(state.scalar[REFERENCE]) + 1 + d


@kernel_internal
def touch(state, side, tick):
    """Put the level into the message that is being made."""
    slot = tick & (state.lots.shape[1] - 1)
    if state.stamp[side, slot] != state.scalar[BATCH]:
        state.stamp[side, slot] = state.scalar[BATCH]
        n = int(state.scalar[BID_TOUCHED + side])
        state.touched[side, n] = tick
        state.scalar[BID_TOUCHED + side] = n + 1


@kernel_internal
def put(state, params, side, tick, lots):
    """Set a level's size; 0 deletes it. Keeps the lists and the totals exact."""
    slot = tick & (state.lots.shape[1] - 1)
    old = int(state.group[side, slot])
    state.lots[side, slot] = lots
    group = -1
    c = 0
    b = 0
    if lots > 0:
        c = int(params.cell[distance(state, side, tick)])
        for i in range(params.bin_edge.shape[1]):
            if lots > params.bin_edge[c, i]:
                b += 1
        group = c * params.rate.shape[1] + b
    if group != old:
        if old >= 0:
            _leave(state, params, side, slot)
        if group >= 0:
            _join(state, params, side, slot, tick, c, b)
    touch(state, side, tick)


@kernel_internal
def empty_tick(state, params, side, c):
    """A tick of the cell without a level, uniformly; there is one."""
    low = int(params.edge[c])
    width = int(params.edge[c + 1]) - low
    mask = state.lots.shape[1] - 1
    d = below(state.rng, width)
    for _ in range(64):
        if state.lots[side, at(state, side, low + d) & mask] == 0:
            return at(state, side, low + d)
        d = below(state.rng, width)
    for _ in range(width):
        if state.lots[side, at(state, side, low + d) & mask] == 0:
            break
        d = (d + 1) % width
    return at(state, side, low + d)


@kernel_internal
def redraw(state, params, side, tick, c):
    """Draw a queue from its stationary distribution; say so only if that changes it."""
    lots = 0
    if draw(state.rng) < params.occupied[c]:
        lots = pick(state.rng, params.rest_size[c])
    if lots != state.lots[side, tick & (state.lots.shape[1] - 1)]:
        put(state, params, side, tick, lots)


@kernel_internal
def _regroup(state, params, side, tick, c):
    slot = tick & (state.lots.shape[1] - 1)
    lots = int(state.lots[side, slot])
    if lots == 0:
        return
    b = 0
    for i in range(params.bin_edge.shape[1]):
        if lots > params.bin_edge[c, i]:
            b += 1
    _leave(state, params, side, slot)
    _join(state, params, side, slot, tick, c, b)


@kernel_internal
def shift(state, params, jump):
    """Move the reference by `jump` ticks: levels change cells, the far edges are cut and filled."""
    cells = len(params.new)
    depth = int(params.edge[cells])
    mask = state.lots.shape[1] - 1
    size = abs(jump)
    near = 1 if jump > 0 else 0  # the side that the price moves into
    far = 1 - near
    for i in range(size):  # cut while the old distances still hold
        tick = at(state, far, depth - 1 - i)
        if state.lots[far, tick & mask] > 0:
            put(state, params, far, tick, 0)
    old = int(state.scalar[REFERENCE])
    state.scalar[REFERENCE] = old + jump
    for c in range(cells - 1, -1, -1):  # outward: the outer cells first, so that no list overflows
        high = int(params.edge[c + 1])
        for d in range(max(int(params.edge[c]), high - size), min(high, depth - size)):
            tick = old - d if far == 0 else old + 1 + d
            _regroup(state, params, far, tick, int(params.cell[d + size]))
    for c in range(cells):  # inward: the inner cells first
        low = int(params.edge[c])
        for d in range(max(low, size), min(low + size, int(params.edge[c + 1]))):
            tick = old - d if near == 0 else old + 1 + d
            _regroup(state, params, near, tick, int(params.cell[d - size]))
    for d in range(depth - size, depth):
        redraw(state, params, near, at(state, near, d), cells - 1)
