"""The order book against a dict: any sequence of events, a small ladder, a small far table."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.compile.codes import BBO, BUY, CLEAR, DEPTH, SELL, SNAPSHOT, TRADE
from tickrt.errors import Code
from tickrt.market import kernels
from tickrt.market.book import (
    ANCHOR_BID,
    BEST_BID,
    EVENTS,
    FAR_BID,
    LAST_TS,
    LEVELS_BID,
    NO_ASK,
    NO_BID,
    Book,
    new_book,
)

LADDER, FAR, TICK = 4096, 32, 0.5
FAR_LIMIT = FAR - FAR // 8
SIDES = (BUY, SELL)


class Reference:
    """The book as two dicts, tick → quantity."""

    def __init__(self) -> None:
        self.levels: tuple[dict[int, float], dict[int, float]] = ({}, {})

    def apply(self, kind: int, flag: int, tick: int, qty: float) -> None:
        if kind == CLEAR:
            for side in (0, 1) if flag == 0 else (SIDES.index(flag),):
                keep = {
                    level: held
                    for level, held in self.levels[side].items()
                    if flag and tick and (level < tick if side == 0 else level > tick)
                }
                self.levels[side].clear()
                self.levels[side].update(keep)
        elif kind in (DEPTH, SNAPSHOT):
            held = self.levels[SIDES.index(flag)]
            if qty:
                held[tick] = qty
            else:
                held.pop(tick, None)

    def top(self, side: int, n: int) -> list[tuple[int, float]]:
        return sorted(self.levels[side].items(), reverse=side == 0)[:n]


def top_levels(book: Book, side: int, n: int) -> list[tuple[int, float]]:
    """The kernel's top N; fails if it writes more than it says."""
    ticks, qtys = np.full(n + 1, -7, np.int64), np.full(n + 1, -7.0)
    count = kernels.top_levels(book, 0, side, n, ticks, qtys)
    assert (ticks[count:] == -7).all()
    assert (qtys[count:] == -7).all()
    return list(zip(ticks[:count].tolist(), qtys[:count].tolist(), strict=True))


def bits_of(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)


def check_invariants(book: Book) -> None:
    """What `kernels` promises of its state."""
    for side, sign in ((0, 1), (1, -1)):
        head = book.head[0]
        occupied = book.qty[0, side] != 0
        assert (bits_of(book.bits[0, side]) == occupied).all()
        assert (bits_of(book.summary[0, side])[: LADDER // 64] == (book.bits[0, side] != 0)).all()
        assert head[LEVELS_BID + side] == occupied.sum()
        used = book.far_qty[0, side] != 0
        assert head[FAR_BID + side] == used.sum() <= FAR_LIMIT
        anchor = head[ANCHOR_BID + side]
        assert (sign * book.far_tick[0, side][used] < anchor).all()
        if occupied.any():
            assert sign * head[BEST_BID + side] == anchor + np.flatnonzero(occupied)[-1]
        else:
            assert head[BEST_BID + side] == (NO_BID, NO_ASK)[side]
            assert not used.any()


def check_against(book: Book, reference: Reference) -> None:
    check_invariants(book)
    bid, bid_qty, ask, ask_qty = kernels.best(book, 0)
    assert [(bid, bid_qty)] == (reference.top(0, 1) or [(NO_BID, 0.0)])
    assert [(ask, ask_qty)] == (reference.top(1, 1) or [(NO_ASK, 0.0)])
    for side in (0, 1):
        for n in (3, 100):
            assert top_levels(book, side, n) == reference.top(side, n)
    assert (kernels.check(book, 0) == Code.BOOK_CROSSED) == (bid >= ask)


near = st.integers(50_000, 50_080)
drifting = st.integers(45_000, 56_000)
anywhere = st.one_of(near, near, drifting, st.integers(0, 200_000), st.integers(0, 1 << 51))
kinds = st.sampled_from([DEPTH] * 12 + [SNAPSHOT] * 3 + [TRADE, BBO, CLEAR])
quantities = st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e9])
flags = st.sampled_from([BUY, SELL])
events = st.lists(st.tuples(kinds, flags, anywhere, quantities), min_size=1, max_size=120)


@settings(max_examples=80, deadline=None)
@given(events)
def test_book_equals_the_reference_after_every_event(sequence: list) -> None:
    book, reference = new_book([TICK], LADDER, FAR), Reference()
    applied = 0
    for ts, (kind, flag, tick, qty) in enumerate(sequence, 1):
        side = SIDES.index(flag)
        before = [array.copy() for array in book]
        code = kernels.apply_event(book, 0, kind | flag, tick * TICK, qty, ts)
        if code == Code.BOOK_FAR_FULL:
            assert len(reference.levels[side]) >= FAR_LIMIT
            assert all((a == b).all() for a, b in zip(before, book, strict=True))
            continue
        assert code == Code.OK
        applied += 1
        reference.apply(kind, flag, tick, qty)
        check_against(book, reference)
        assert book.head[0, LAST_TS] == ts
        assert book.head[0, EVENTS] == applied


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), drifting), unique=True, max_size=60),
    st.randoms(use_true_random=False),
)
def test_a_snapshot_gives_the_same_book_in_any_order(levels: list, random) -> None:
    results = []
    for _ in range(2):
        book = new_book([TICK], LADDER, 128)
        for side, tick in levels:
            code = kernels.apply_event(book, 0, SNAPSHOT | SIDES[side], tick * TICK, 1.0 + tick, 1)
            assert code == Code.OK
        check_levels = [top_levels(book, side, 100) for side in (0, 1)]
        results.append((check_levels, kernels.best(book, 0)))
        random.shuffle(levels)
    assert results[0] == results[1]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([DEPTH, SNAPSHOT, TRADE, BBO]),
    flags,
    st.sampled_from(
        [(math.nan, 1.0), (math.inf, 1.0), (-0.5, 1.0), (1e300, 1.0), (float(1 << 52), 1.0)]
    )
    | st.sampled_from([(1.0, math.nan), (1.0, math.inf), (1.0, -1.0)]),
)
def test_a_bad_number_is_refused_and_changes_nothing(kind: int, flag: int, numbers: tuple) -> None:
    book = new_book([TICK], LADDER, FAR)
    kernels.apply_event(book, 0, DEPTH | BUY, 100.0, 1.0, 1)
    before = [array.copy() for array in book]
    assert kernels.apply_event(book, 0, kind | flag, *numbers, 2) == Code.BOOK_BAD_EVENT
    assert all((a == b).all() for a, b in zip(before, book, strict=True))
