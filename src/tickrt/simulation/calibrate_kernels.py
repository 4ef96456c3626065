"""Compiled half of the calibration: one pass over an event file, everything that is counted.

The pass keeps its own dense ladder around the first mid price, because it needs what a book does
not give: each level's size before and after a message, by distance, with the time spent there.

Attribution. A level's change within one depth message is one event. Volume that traded at the level
since the last message is taken out first: what remains of a decrease is a cancellation, a smaller
decrease than the volume is an arrival. A level in the message whose size did not change came and
went between two messages (*touch*, *blink* for an empty tick). When the price moves within a
message, what happens to the best queue that is left behind is counted apart (*left*).

All that one side loses to trades between two messages is one market order; it empties the best
queue (1000 thousandths and more) only if that queue is gone when the message ends.

Known limits: levels outside the ladder or beyond the calibrated depth are not counted; trades are
matched to depth messages by exchange time, whose resolution is a millisecond here.
"""

from typing import NamedTuple

import numpy as np

from tickrt.compile.codes import BATCH_END, BUY, DEPTH, KIND_MASK, SNAPSHOT
from tickrt.compile.jit import kernel, kernel_internal

NEW_LEVEL, BLINK, MORE, LESS, DELETE, TOUCH, FOLLOW, REFILL, LEFT = range(9)
FOLLOWED, OPENED, CLOSED_MOVED, CLOSED_BACK = range(4)


class Tape(NamedTuple):
    """The events as plain arrays, and the trades once more in the order of exchange time."""

    ev: np.ndarray  # i8[E]
    ts: np.ndarray  # i8[E] exchange time, ns
    tick: np.ndarray  # i8[E] relative to the ladder's slot 0
    lots: np.ndarray  # i8[E]
    trade_ts: np.ndarray  # i8[X]
    trade_side: np.ndarray  # i8[X] the side that is consumed: 0 bids, 1 asks
    trade_tick: np.ndarray  # i8[X]
    trade_lots: np.ndarray  # i8[X]


class Tally(NamedTuple):
    """What the pass counts. R records of level events, D depth messages, X market orders."""

    edge: np.ndarray  # i8[C+1]
    cell: np.ndarray  # i8[depth]
    bin_edge: np.ndarray  # i8[C,B-1]
    exposure: np.ndarray  # f8[C,B] seconds spent by levels
    empty: np.ndarray  # f8[C] seconds spent by empty ticks
    record: np.ndarray  # i8[R,4] kind, cell, bin, size or change in lots (LESS: thousandths)
    order: np.ndarray  # i8[X,5] bin of the best or -1, thousandths of it, lots, trades, per level
    message: np.ndarray  # i8[D,4] time, events counted, best bid, best ask (after the message)
    best: np.ndarray  # i8[D,2] sizes at the best prices after the message
    move: np.ndarray  # i8[D,3] what the message did to the reference: outcome, events, ticks
    level: np.ndarray  # f8[3,V] sums over every 64th message: ticks from the best, lots, how many
    traded: np.ndarray  # i8[2,N] scratch: volume traded since the last message
    old: np.ndarray  # i8[max message] scratch
    lots: np.ndarray  # i8[2,N] the ladder
    n: np.ndarray  # i8[4] records, orders, messages, moves


@kernel_internal
def bin_of(tally, c, lots):
    """Size bin of a level: how many edges lie below its size."""
    b = 0
    for i in range(tally.bin_edge.shape[1]):
        if lots > tally.bin_edge[c, i]:
            b += 1
    return b


@kernel_internal
def _best(lots, side, start):
    """First level at or behind `start`, away from the other side; -1 if none."""
    n = lots.shape[1]
    step = -1 if side == 0 else 1
    i = start
    while 0 <= i < n:
        if lots[side, i] > 0:
            return i
        i += step
    return -1


@kernel_internal
def _expose(tally, bid, ask, seconds):
    depth = len(tally.cell)
    for side in range(2):
        for d in range(depth):
            tick = bid - d if side == 0 else ask + d
            if tick < 0 or tick >= tally.lots.shape[1]:
                break
            c = int(tally.cell[d])
            lots = int(tally.lots[side, tick])
            if lots > 0:
                tally.exposure[c, bin_of(tally, c, lots)] += seconds
            else:
                tally.empty[c] += seconds


@kernel_internal
def _write(tally, kind, c, b, value):
    n = int(tally.n[0])
    tally.record[n, 0] = kind
    tally.record[n, 1] = c
    tally.record[n, 2] = b
    tally.record[n, 3] = value
    tally.n[0] = n + 1


@kernel_internal
def _trades(tape, tally, x, until, bests, sizes):
    """Trades up to a time: mark them on the ladder; each side's are one order. Returns the next."""
    first = x
    while x < len(tape.trade_ts) and tape.trade_ts[x] <= until:
        if 0 <= tape.trade_tick[x] < tally.lots.shape[1]:
            tally.traded[tape.trade_side[x], tape.trade_tick[x]] += tape.trade_lots[x]
        x += 1
    for side in range(2):
        volume = 0
        trades = 0
        levels = 0
        before = -1
        for i in range(first, x):
            if tape.trade_side[i] == side:
                volume += int(tape.trade_lots[i])
                trades += 1
                levels += 1 if tape.trade_tick[i] != before else 0
                before = int(tape.trade_tick[i])
        if trades == 0:
            continue
        best = int(bests[side])
        size = int(sizes[side]) if tally.traded[side, best] > 0 else 0
        part = 1000 * volume // max(1, size)
        emptied = part >= 1000 and tally.lots[side, best] == 0
        row = int(tally.n[1])
        tally.order[row, 0] = bin_of(tally, 0, size) if size > 0 else -1
        tally.order[row, 1] = part if emptied else min(part, 999)
        tally.order[row, 2] = volume
        tally.order[row, 3] = trades
        tally.order[row, 4] = (trades + levels - 1) // levels
        tally.n[1] = row + 1
    return x


@kernel_internal
def _left(bests, side):
    """Whether a better price of the same side left the old best queue behind."""
    return bests[2] > bests[0] if side == 0 else bests[3] < bests[1]


@kernel_internal
def _attribute(tape, tally, i, old, bests, refill):
    """One level's change as a record. Returns 1 if it lies within the calibrated depth."""
    side = 0 if tape.ev[i] & BUY else 1
    tick = int(tape.tick[i])
    d = bests[side] - tick if side == 0 else tick - bests[side]
    ahead = d < 0
    if ahead:  # in front of the old best: only the new reference has a place for it
        d = bests[2 + side] - tick if side == 0 else tick - bests[2 + side]
    if d < 0 or d >= len(tally.cell):
        return 0
    c = int(tally.cell[d])
    now = int(tape.lots[i])
    if d == 0 and not ahead and _left(bests, side):
        _write(tally, LEFT, c, 0, min(1000, 1000 * now // max(1, old)))
    elif old == 0 and now == 0:
        _write(tally, BLINK, c, 0, 0)
    elif old == 0:
        kind = NEW_LEVEL
        if ahead and d == 0:
            kind = REFILL if refill else FOLLOW
        _write(tally, kind, c, 0, now)
    else:
        b = bin_of(tally, c, old)
        left = old - min(old, int(tally.traded[side, tick]))
        if now > left:
            _write(tally, MORE, c, b, now - left)
        elif now == 0 and left > 0:
            _write(tally, DELETE, c, b, old)
        elif now < left:
            _write(tally, LESS, c, b, 1000 * (left - now) // old)
        elif now == old:
            _write(tally, TOUCH, c, b, old)
    return 1


@kernel_internal
def _reference(tally, bests, pair, events):
    """Follow the reference pair through openings and closings; returns nothing."""
    n = int(tally.n[3])
    was_open = bests[1] - bests[0] > 1
    is_open = bests[3] - bests[2] > 1
    if not was_open and (is_open or bests[2] != bests[0]):
        tally.move[n, 0] = OPENED if is_open else FOLLOWED
        tally.move[n, 1] = events
        tally.move[n, 2] = max(abs(bests[2] - bests[0]), abs(bests[3] - bests[1]))
        tally.n[3] = n + 1
        pair[0] = bests[0]
    elif was_open and not is_open:
        tally.move[n, 0] = CLOSED_BACK if bests[2] == pair[0] else CLOSED_MOVED
        tally.move[n, 1] = events
        tally.move[n, 2] = max(abs(bests[2] - bests[0]), abs(bests[3] - bests[1]))
        tally.n[3] = n + 1


@kernel_internal
def _levels(tally, bests):
    for side in range(2):
        tick = int(bests[2 + side])
        for v in range(tally.level.shape[1]):
            tally.level[0, v] += abs(tick - bests[2 + side])
            tally.level[1, v] += tally.lots[side, tick]
            tally.level[2, v] += 1
            tick = _best(tally.lots, side, tick + (1 if side == 1 else -1))
            if tick < 0:
                break


@kernel_internal
def _close_message(tape, tally, first, last, x, t, bests, pair, sizes):
    """A depth message has been applied: classify its levels. Returns the next trade."""
    x0 = x
    x = _trades(tape, tally, x, tape.ts[last], bests, sizes)
    _expose(tally, bests[0], bests[1], (tape.ts[last] - t) * 1e-9)
    refill = bests[1] - bests[0] > 1 and bests[2] == pair[0]
    counted = 0
    for i in range(first, last + 1):
        counted += _attribute(tape, tally, i, int(tally.old[i - first]), bests, refill)
    _reference(tally, bests, pair, counted)
    n = int(tally.n[2])
    tally.message[n, 0] = tape.ts[last]
    tally.message[n, 1] = counted
    for side in range(2):
        tally.message[n, 2 + side] = bests[2 + side]
        tally.best[n, side] = tally.lots[side, bests[2 + side]]
    tally.n[2] = n + 1
    if n % 64 == 0:
        _levels(tally, bests)
    for i in range(x0, x):
        if 0 <= tape.trade_tick[i] < tally.lots.shape[1]:
            tally.traded[tape.trade_side[i], tape.trade_tick[i]] = 0
    return x


@kernel
def observe(tape, tally, bests, pair, sizes):
    """Walk the tape once and fill the tally.

    Args:
        tape: the events.
        tally: zeroed but for the calibration's cells and bins.
        bests: i8[4] scratch: best bid and ask before and after a message.
        pair: i8[1] scratch: the reference bid before a gap opened.
        sizes: i8[2] scratch: sizes at the best prices after the last message.

    Returns:
        0, or -1 if a side of the book was empty after a message.
    """
    n = tally.lots.shape[1]
    first = 0
    x = 0
    t = int(tape.ts[0])
    settled = 0
    for i in range(len(tape.ev)):
        kind = int(tape.ev[i]) & KIND_MASK
        book = kind == DEPTH or kind == SNAPSHOT
        if i == first:
            bests[0] = bests[2]
            bests[1] = bests[3]
        if book and 0 <= tape.tick[i] < n:
            side = 0 if tape.ev[i] & BUY else 1
            tally.old[i - first] = tally.lots[side, tape.tick[i]]
            tally.lots[side, tape.tick[i]] = tape.lots[i]
        elif book:
            tally.old[i - first] = tape.lots[i]
        if not tape.ev[i] & BATCH_END:
            continue
        if book:
            start = max(bests[0], bests[1])
            for j in range(first, i + 1):
                if tape.ev[j] & BUY and tape.lots[j] > 0:
                    start = max(start, int(tape.tick[j]))
            bests[2] = _best(tally.lots, 0, min(start, n - 1))
            bests[3] = _best(tally.lots, 1, bests[2] + 1)
            if bests[2] < 0 or bests[3] < 0:
                return -1
            if kind == DEPTH and settled == 1:
                x = _close_message(tape, tally, first, i, x, t, bests, pair, sizes)
            else:
                while x < len(tape.trade_ts) and tape.trade_ts[x] <= tape.ts[i]:
                    x += 1
                settled = 1
            t = int(tape.ts[i])
            for side in range(2):
                sizes[side] = tally.lots[side, bests[2 + side]]
        first = i + 1
    return 0
