"""Compiled half of the order book: apply events, best prices, the top N levels.

Entry points: `apply_event`, `check`, `best`, `top_levels`; `set_level` and `nth_level` for
`deferred_kernels`. State is a `book.Book`; see there for how it is laid out. Names with a leading
underscore are pieces of these.

*Key*: +tick on the bid side, −tick on the ask side, so a better price is a larger key on both sides
and one code serves both. The level with key k lies at index ``k − head[s, ANCHOR_BID + side]``.

Invariants, after every call:
- the best level of a side that has any is in the ladder;
- a level outside the ladder lies *below* it (is worse than all in it) and is in the far table;
- `bits` has a one exactly where `qty` is not 0, `summary` where a word of `bits` is not 0.

Ladders are moved (`_anchor`) when a new best lies above the ladder, when the best has sunk into the
lowest quarter, and when the ladder ran empty with levels left in the far table.

Anchors are multiples of 64, so ladders move by whole words of `bits`. Moving towards better prices
only drops levels into the far table, moving towards worse ones only takes levels out of it.

Known limits: prices below 2^52 ticks. A far table is full at 7/8 of its slots. Where a ladder holds
fewer levels than `top_levels` was asked for, the rest costs one pass over the far table.
"""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import (
    BOOK_BAD_EVENT,
    BOOK_CROSSED,
    BOOK_FAR_FULL,
    CLEAR,
    DEPTH,
    KIND_MASK,
    OK,
    SNAPSHOT,
)
from tickrt.compile.intrinsics import leading_zeros, ones, trailing_zeros
from tickrt.compile.jit import inline_kernel, kernel, kernel_internal

# Columns of `head`. ANCHOR_* are keys; BEST_* are ticks. Pairs are adjacent: `NAME_BID + side`.
ANCHOR_BID, ANCHOR_ASK, BEST_BID, BEST_ASK, LEVELS_BID, LEVELS_ASK, FAR_BID, FAR_ASK = range(8)
LAST_TS, REANCHORS, EVENTS = range(8, 11)
HEAD = 16
NO_BID = -(1 << 62)
NO_ASK = 1 << 62

TICK_LIMIT = 4503599627370496.0  # 2^52: up to here a float64 price in ticks is exact
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
_NONE = np.uint64(0)


@kernel_internal
def _below(book, s, side, index):
    """The highest occupied ladder index <= `index`; -1 where there is none."""
    if index < 0:
        return -1
    w = index >> 6
    word = book.bits[s, side, w] & (_ALL >> np.uint64(63 - (index & 63)))
    if word != _NONE:
        return (w << 6) + 63 - leading_zeros(word)
    if w == 0:
        return -1
    w -= 1
    u = w >> 6
    word = book.summary[s, side, u] & (_ALL >> np.uint64(63 - (w & 63)))
    while word == _NONE:
        if u == 0:
            return -1
        u -= 1
        word = book.summary[s, side, u]
    w = (u << 6) + 63 - leading_zeros(word)
    return (w << 6) + 63 - leading_zeros(book.bits[s, side, w])


@kernel_internal
def _mark(book, s, side, index):
    """Note that ladder level `index` is occupied."""
    w = index >> 6
    book.bits[s, side, w] |= _ONE << np.uint64(index & 63)
    book.summary[s, side, w >> 6] |= _ONE << np.uint64(w & 63)


@kernel_internal
def _far_home(tick, mask):
    """The far slot where `tick` would like to be; 63-bit arithmetic, so it cannot overflow."""
    folded = (tick ^ (tick >> 31)) & 0x7FFFFFFF
    return ((folded * 2654435769) >> 16) & mask


@kernel_internal
def _far_find(book, s, side, tick):
    """The far slot that holds `tick`, or the empty one where it belongs."""
    mask = book.far_tick.shape[2] - 1
    slot = _far_home(tick, mask)
    while book.far_qty[s, side, slot] != 0.0 and book.far_tick[s, side, slot] != tick:
        slot = (slot + 1) & mask
    return slot


@kernel_internal
def _far_set(book, s, side, tick, qty):
    """Write a level into the far table, or take it out (`qty` 0); -> False where it is full."""
    slot = _far_find(book, s, side, tick)
    held = book.far_qty[s, side, slot] != 0.0
    if qty > 0.0:
        if not held:
            size = book.far_tick.shape[2]
            if book.head[s, FAR_BID + side] >= size - (size >> 3):
                return False
            book.head[s, FAR_BID + side] += 1
            book.far_tick[s, side, slot] = tick
        book.far_qty[s, side, slot] = qty
    elif held:
        _far_remove(book, s, side, slot)
    return True


@kernel_internal
def _far_remove(book, s, side, slot):
    """Empty `slot` and close the gap: pull back each follower that may lie nearer to its home."""
    mask = book.far_tick.shape[2] - 1
    gap = slot
    follower = (gap + 1) & mask
    while book.far_qty[s, side, follower] != 0.0:
        home = _far_home(book.far_tick[s, side, follower], mask)
        if ((follower - home) & mask) >= ((follower - gap) & mask):
            book.far_tick[s, side, gap] = book.far_tick[s, side, follower]
            book.far_qty[s, side, gap] = book.far_qty[s, side, follower]
            gap = follower
        follower = (follower + 1) & mask
    book.far_qty[s, side, gap] = 0.0
    book.head[s, FAR_BID + side] -= 1


@kernel_internal
def _far_best(book, s, side):
    """The best key in the far table; `NO_BID` where it is empty."""
    sign = 1 - 2 * side
    top = NO_BID
    for slot in range(book.far_tick.shape[2]):
        if book.far_qty[s, side, slot] != 0.0:
            top = max(top, sign * book.far_tick[s, side, slot])
    return top


@kernel_internal
def _evict(book, s, side, w):
    """Move the levels of word `w` of the ladder into the far table, which has room for them."""
    sign = 1 - 2 * side
    word = book.bits[s, side, w]
    while word != _NONE:
        bit = 63 - leading_zeros(word)
        word ^= _ONE << np.uint64(bit)
        index = (w << 6) + bit
        tick = sign * (book.head[s, ANCHOR_BID + side] + index)
        _far_set(book, s, side, tick, book.qty[s, side, index])
        book.qty[s, side, index] = 0.0
        book.head[s, LEVELS_BID + side] -= 1


@kernel_internal
def _shift(book, s, side, words):
    """Move every level of the ladder down by `words` words (up where negative)."""
    n_words = book.bits.shape[2]
    for i in range(n_words):
        w = i if words > 0 else n_words - 1 - i
        word = book.bits[s, side, w]
        if word == _NONE:
            continue
        if w < words:
            _evict(book, s, side, w)
        else:
            for index in range(w << 6, (w + 1) << 6):
                book.qty[s, side, index - (words << 6)] = book.qty[s, side, index]
                book.qty[s, side, index] = 0.0
            book.bits[s, side, w - words] = word
        book.bits[s, side, w] = _NONE
    for u in range(book.summary.shape[2]):
        word = _NONE
        for w in range(64):
            if book.bits[s, side, (u << 6) + w] != _NONE:
                word |= _ONE << np.uint64(w)
        book.summary[s, side, u] = word


@kernel_internal
def _pull(book, s, side):
    """Move the levels of the far table that lie in the ladder's range into the ladder."""
    sign = 1 - 2 * side
    anchor = book.head[s, ANCHOR_BID + side]
    slot = 0
    while slot < book.far_tick.shape[2]:
        qty = book.far_qty[s, side, slot]
        index = sign * book.far_tick[s, side, slot] - anchor
        if qty != 0.0 and index >= 0 and index < book.qty.shape[2]:
            book.qty[s, side, index] = qty
            _mark(book, s, side, index)
            book.head[s, LEVELS_BID + side] += 1
            _far_remove(book, s, side, slot)  # may bring another level into this slot: look again
        else:
            slot += 1


@kernel_internal
def _anchor(book, s, side, key):
    """Move the ladder so that `key` lies at 3/4 of it; -> False, unchanged: far table full."""
    size = book.qty.shape[2]
    old = book.head[s, ANCHOR_BID + side]
    new = ((key - (size - (size >> 2))) >> 6) << 6
    if book.head[s, LEVELS_BID + side] > 0:
        leaving = 0
        index = _below(book, s, side, min(new - old, size) - 1)
        while index >= 0:
            leaving += 1
            index = _below(book, s, side, index - 1)
        slots = book.far_tick.shape[2]
        if book.head[s, FAR_BID + side] + leaving > slots - (slots >> 3):
            return False
        _shift(book, s, side, (new - old) >> 6)
    book.head[s, ANCHOR_BID + side] = new
    book.head[s, REANCHORS] += 1
    if book.head[s, FAR_BID + side] > 0:
        _pull(book, s, side)
    return True


@kernel_internal
def _sink(book, s, side, index):
    """The best level is gone and the next, `index` or -1 for none, lies low: move the ladder."""
    sign = 1 - 2 * side
    far = book.head[s, FAR_BID + side]
    if index < 0 and far == 0:
        book.head[s, BEST_BID + side] = sign * NO_BID
        return
    key = book.head[s, ANCHOR_BID + side] + index
    if index < 0:
        key = _far_best(book, s, side)
    book.head[s, BEST_BID + side] = sign * key
    if far > 0:
        _anchor(book, s, side, key)  # downwards or of an empty ladder: cannot fail


@kernel_internal
def _best_gone(book, s, side, index):
    """The best level, at ladder `index`, was taken out: find the next."""
    next_index = _below(book, s, side, index - 1)
    if next_index < book.qty.shape[2] >> 2:
        _sink(book, s, side, next_index)
    else:
        book.head[s, BEST_BID + side] += (1 - 2 * side) * (next_index - index)


@inline_kernel
def set_level(book, s, side, index, qty):
    """Set the quantity of ladder level `index`, 0 takes it out.

    Whether a level appears, changes or goes is as good as random: one way through for all three,
    without a branch to mispredict. Only the best is a case of its own.
    """
    ladder, bits, summary, head = (
        book.qty[s, side],
        book.bits[s, side],
        book.summary[s, side],
        book.head[s],
    )
    w = index >> 6
    u = w >> 6
    held, holds = ladder[index] != 0.0, qty != 0.0
    ladder[index] = abs(qty)  # there is a −0.0
    bit, word_bit = np.uint64(index & 63), np.uint64(w & 63)
    word = (bits[w] & ~(_ONE << bit)) | (np.uint64(holds) << bit)
    bits[w] = word
    summary[u] = (summary[u] & ~(_ONE << word_bit)) | (np.uint64(word != _NONE) << word_bit)
    head[LEVELS_BID + side] += int(holds) - int(held)
    key = head[ANCHOR_BID + side] + index
    if key >= (1 - 2 * side) * head[BEST_BID + side]:
        if holds:
            head[BEST_BID + side] = (1 - 2 * side) * key
        elif held:
            _best_gone(book, s, side, index)


@kernel_internal
def _set_outside(book, s, side, tick, qty):
    """A level outside the ladder: a far one, or a new best that the ladder must follow."""
    sign = 1 - 2 * side
    below = sign * tick < book.head[s, ANCHOR_BID + side]
    known = book.head[s, LEVELS_BID + side] > 0
    if qty == 0.0 or (below and known):
        return OK if _far_set(book, s, side, tick, qty) else BOOK_FAR_FULL
    if not _anchor(book, s, side, sign * tick):
        return BOOK_FAR_FULL
    index = sign * tick - book.head[s, ANCHOR_BID + side]
    book.qty[s, side, index] = qty
    _mark(book, s, side, index)
    book.head[s, LEVELS_BID + side] += 1
    book.head[s, BEST_BID + side] = tick
    return OK


@kernel_internal
def _clear_side(book, s, side):
    """Drop every level of a side."""
    for w in range(book.bits.shape[2]):
        if book.bits[s, side, w] != _NONE:
            book.bits[s, side, w] = _NONE
            for index in range(w << 6, (w + 1) << 6):
                book.qty[s, side, index] = 0.0
    for u in range(book.summary.shape[2]):
        book.summary[s, side, u] = _NONE
    for slot in range(book.far_qty.shape[2]):
        book.far_qty[s, side, slot] = 0.0
    book.head[s, LEVELS_BID + side] = 0
    book.head[s, FAR_BID + side] = 0
    book.head[s, BEST_BID + side] = (1 - 2 * side) * NO_BID


@kernel_internal
def _clear(book, s, ev, px):
    """CLEAR: a side's levels from the best to `px`; all of them where px is 0, NaN or infinite;
    both sides where the event names none."""
    side = 2 - ((ev >> 28) & 3)
    if side < 0 or side > 1:
        _clear_side(book, s, 0)
        _clear_side(book, s, 1)
        return OK
    if px != px or px == 0.0 or px == np.inf:
        _clear_side(book, s, side)
        return OK
    ticks = px * book.inv_tick[s]
    if not (ticks >= 0.0 and ticks < TICK_LIMIT):
        return BOOK_BAD_EVENT
    sign = 1 - 2 * side
    last = sign * int(ticks + 0.5)
    while book.head[s, LEVELS_BID + side] > 0:
        key = sign * book.head[s, BEST_BID + side]
        if key < last:
            break
        set_level(book, s, side, key - book.head[s, ANCHOR_BID + side], 0.0)
    return OK


@inline_kernel
def apply_event(book, s, ev, px, qty, ts_ns):
    """Apply one event to the book of symbol `s`.

    DEPTH and SNAPSHOT set a level's quantity (0 deletes it); CLEAR drops levels (see `_clear`);
    every other kind changes nothing. A crossing is applied as it is; `check` reports it after the
    batch.

    Args:
        book: a `book.Book`.
        s: symbol index.
        ev: int64, the event's flags and kind.
        px: price in quote currency; rounded to the nearest tick.
        qty: quantity in the feed's unit.
        ts_ns: the event's time, kept in ``head[s, LAST_TS]``.

    Returns:
        OK; BOOK_BAD_EVENT (price or quantity negative or not finite, a level without exactly one
        side) or BOOK_FAR_FULL, both with the book unchanged.
    """
    kind = ev & KIND_MASK
    code = OK
    ticks = px * book.inv_tick[s]
    good = ticks >= 0.0 and ticks < TICK_LIMIT and qty >= 0.0 and qty < np.inf
    if kind == DEPTH or kind == SNAPSHOT:
        side = 2 - ((ev >> 28) & 3)
        if not good or side < 0 or side > 1:
            return BOOK_BAD_EVENT
        tick = int(ticks + 0.5)
        index = (1 - 2 * side) * tick - book.head[s, ANCHOR_BID + side]
        if index < 0 or index >= book.qty.shape[2]:
            code = _set_outside(book, s, side, tick, qty)
        else:
            set_level(book, s, side, index, qty)
    elif kind == CLEAR:
        code = _clear(book, s, ev, px)
    elif not good:
        code = BOOK_BAD_EVENT
    if code == OK:
        book.head[s, LAST_TS] = ts_ns
        book.head[s, EVENTS] += 1
    return code


@inline_kernel
def check(book, s):
    """After a complete batch: BOOK_CROSSED where best bid >= best ask, else OK."""
    return BOOK_CROSSED if book.head[s, BEST_BID] >= book.head[s, BEST_ASK] else OK


@inline_kernel
def best(book, s):
    """-> (bid tick, bid quantity, ask tick, ask quantity); `NO_BID`, `NO_ASK`, 0.0 where empty."""
    bid, ask = book.head[s, BEST_BID], book.head[s, BEST_ASK]
    bid_qty, ask_qty = 0.0, 0.0
    if bid != NO_BID:
        bid_qty = book.qty[s, 0, bid - book.head[s, ANCHOR_BID]]
    if ask != NO_ASK:
        ask_qty = book.qty[s, 1, -ask - book.head[s, ANCHOR_ASK]]
    return bid, bid_qty, ask, ask_qty


@kernel_internal
def _top_far(book, s, side, n, count, ticks, qtys):
    """Fill up the outputs from `count` to `n` with the best levels of the far table, sorted."""
    sign = 1 - 2 * side
    first = count
    for slot in range(book.far_tick.shape[2]):
        qty = book.far_qty[s, side, slot]
        tick = book.far_tick[s, side, slot]
        if qty == 0.0 or (count == n and sign * tick < sign * ticks[n - 1]):
            continue
        count = min(count + 1, n)
        at = count - 1
        while at > first and sign * ticks[at - 1] < sign * tick:
            ticks[at] = ticks[at - 1]
            qtys[at] = qtys[at - 1]
            at -= 1
        ticks[at] = tick
        qtys[at] = qty
    return count


@kernel_internal
def nth_level(book, s, side, n):
    """The ladder index of the n-th best level of a side; −1 where the ladder holds fewer."""
    if book.head[s, LEVELS_BID + side] < n:
        return -1
    sign = 1 - 2 * side
    w = (sign * book.head[s, BEST_BID + side] - book.head[s, ANCHOR_BID + side]) >> 6
    while True:
        word = book.bits[s, side, w]
        while word != _NONE:
            bit = 63 - leading_zeros(word)
            word ^= _ONE << np.uint64(bit)
            n -= 1
            if n == 0:
                return (w << 6) + bit
        w = _below(book, s, side, (w << 6) - 1) >> 6


@kernel
def top_levels(book, s, side, n, ticks, qtys):
    """Write the best `n` levels of a side, best first; levels without quantity are not there.

    Args:
        book: a `book.Book`.
        s: symbol index.
        side: 0 bids, 1 asks.
        n: how many are wanted.
        ticks: int64[>= n], receives prices in ticks.
        qtys: float64[>= n], receives quantities.

    Returns:
        How many were written; only so many entries are touched.
    """
    if n <= 0 or book.head[s, LEVELS_BID + side] == 0:
        return 0
    sign = 1 - 2 * side
    bits, ladder = book.bits[s, side], book.qty[s, side]
    anchor = book.head[s, ANCHOR_BID + side]
    w = (sign * book.head[s, BEST_BID + side] - anchor) >> 6
    count = 0
    while True:
        word, first = bits[w], count
        count += ones(word)
        if count >= n:
            for at in range(first, n):
                bit = 63 - leading_zeros(word)
                word ^= _ONE << np.uint64(bit)
                ticks[at] = sign * (anchor + (w << 6) + bit)
                qtys[at] = ladder[(w << 6) + bit]
            return n
        at = count - 1
        while at >= first:  # worst first: taking the lowest bit off is a single instruction
            index = (w << 6) + trailing_zeros(word)
            word &= word - _ONE
            ticks[at] = sign * (anchor + index)
            qtys[at] = ladder[index]
            at -= 1
        index = _below(book, s, side, (w << 6) - 1)
        if index < 0:
            break
        w = index >> 6
    if book.head[s, FAR_BID + side] > 0:
        count = _top_far(book, s, side, n, count, ticks, qtys)
    return count
