"""The book's kernels: ladders that move, far levels, codes, the same state with and without JIT."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tickrt.compile.codes import BUY, CLEAR, DEPTH, SELL, SNAPSHOT, TRADE
from tickrt.errors import BookError, Code, ConfigError, raise_code
from tickrt.market import kernels
from tickrt.market.book import (
    ANCHOR_ASK,
    ANCHOR_BID,
    BEST_ASK,
    BEST_BID,
    FAR_ASK,
    FAR_BID,
    LEVELS_ASK,
    LEVELS_BID,
    NO_ASK,
    NO_BID,
    REANCHORS,
    Book,
    new_book,
)


def put(book: Book, side: int, tick: int, qty: float, s: int = 0) -> int:
    """Set one level, with a tick size of 0.1."""
    flag = SELL if side else BUY
    return int(kernels.apply_event(book, s, DEPTH | flag, tick * 0.1, qty, 1))


def top(book: Book, side: int, n: int = 100, s: int = 0) -> list[tuple[int, float]]:
    ticks, qtys = np.zeros(n, np.int64), np.zeros(n)
    count = kernels.top_levels(book, s, side, n, ticks, qtys)
    return list(zip(ticks[:count].tolist(), qtys[:count].tolist(), strict=True))


def test_an_empty_book_has_sentinels_and_is_not_crossed() -> None:
    book = new_book([0.1])
    assert kernels.best(book, 0) == (NO_BID, 0.0, NO_ASK, 0.0)
    assert top(book, 0) == top(book, 1) == []
    assert kernels.check(book, 0) == Code.OK


def test_symbols_do_not_touch_each_other() -> None:
    book = new_book([0.1, 0.01])
    put(book, 0, 600_000, 1.0, s=0)
    kernels.apply_event(book, 1, DEPTH | BUY, 2345.67, 2.0, 1)
    assert top(book, 0, s=0) == [(600_000, 1.0)]
    assert top(book, 0, s=1) == [(234_567, 2.0)]


def test_prices_round_to_the_nearest_tick_as_hftbacktest_does() -> None:
    book = new_book([0.1])
    for i in range(1, 200_000, 7):
        px = float(f"{i / 10:.1f}")
        kernels.apply_event(book, 0, DEPTH | SELL, px, 1.0, 1)
        assert book.head[0, BEST_ASK] == round(px / 0.1) == i
        kernels.apply_event(book, 0, CLEAR | SELL, 0.0, 0.0, 1)


@pytest.mark.parametrize("side", [0, 1])
def test_the_ladder_follows_the_market_and_brings_far_levels_back(side: int) -> None:
    book = new_book([0.1], ladder_ticks=4096, far_capacity=64)
    better = 1 if side == 0 else -1
    start = 1_000_000
    levels = [start - better * 500 * i for i in range(20)]  # worse and worse, far beyond the ladder
    for tick in levels:
        assert put(book, side, tick, 1.0) == Code.OK
    assert book.head[0, FAR_BID + side] > 0
    assert [tick for tick, _ in top(book, side)] == levels
    moved = int(book.head[0, REANCHORS])
    for tick in levels[:-1]:  # the market moves through them
        assert put(book, side, tick, 0.0) == Code.OK
        assert book.head[0, BEST_BID + side] == top(book, side)[0][0]
    assert book.head[0, REANCHORS] > moved
    assert top(book, side) == [(levels[-1], 1.0)]
    assert book.head[0, FAR_BID + side] == 0


@pytest.mark.parametrize("side", [0, 1])
def test_a_stray_price_far_away_becomes_best_openly_and_leaves_no_trace(side: int) -> None:
    book = new_book([0.1], ladder_ticks=4096, far_capacity=64)
    for i in range(40):
        put(book, side, 600_000 + i, 1.0)
    before = top(book, side)
    stray = 6_000_000 if side == 0 else 6
    assert put(book, side, stray, 3.0) == Code.OK
    assert top(book, side) == [(stray, 3.0), *before]
    assert book.head[0, LEVELS_BID + side] == 1
    assert put(book, side, stray, 0.0) == Code.OK
    assert top(book, side) == before
    assert book.head[0, FAR_BID + side] == 0


def test_a_full_far_table_is_a_code_and_changes_nothing() -> None:
    book = new_book([0.1], ladder_ticks=4096, far_capacity=16)
    put(book, 0, 1_000_000, 1.0)
    for i in range(14):
        assert put(book, 0, 100 + i, 1.0) == Code.OK
    assert put(book, 0, 99, 1.0) == Code.BOOK_FAR_FULL
    assert put(book, 0, 100, 5.0) == Code.OK  # a level that is there can still change
    state = [array.copy() for array in book]
    assert put(book, 0, 9_000_000, 1.0) == Code.BOOK_FAR_FULL  # the ladder would have to follow
    assert all((a == b).all() for a, b in zip(state, book, strict=True))
    with pytest.raises(BookError, match=r"event 7: too many levels outside .*far_capacity"):
        raise_code(Code.BOOK_FAR_FULL, "event 7")


def test_a_crossing_is_applied_and_reported_after_the_batch() -> None:
    book = new_book([0.1])
    put(book, 0, 1000, 1.0)
    put(book, 1, 1001, 1.0)
    assert kernels.check(book, 0) == Code.OK
    assert put(book, 0, 1001, 2.0) == Code.OK
    assert kernels.check(book, 0) == Code.BOOK_CROSSED
    put(book, 1, 1001, 0.0)
    put(book, 1, 1002, 1.0)
    assert kernels.check(book, 0) == Code.OK
    assert kernels.best(book, 0) == (1001, 2.0, 1002, 1.0)


@pytest.mark.parametrize(
    ("flags", "px", "bids", "asks"),
    [
        (BUY, 99.9, [998, 997], [1001, 1002, 1003, 1004]),
        (SELL, 100.2, [1000, 999, 998, 997], [1003, 1004]),
        (BUY, 0.0, [], [1001, 1002, 1003, 1004]),
        (SELL, float("nan"), [1000, 999, 998, 997], []),
        (SELL, 0.0, [1000, 999, 998, 997], []),
        (0, float("nan"), [], []),
    ],
)
def test_clear_drops_levels_from_the_best_to_the_price(
    flags: int, px: float, bids: list[int], asks: list[int]
) -> None:
    book = new_book([0.1])
    for i in range(4):
        put(book, 0, 1000 - i, 1.0)
        put(book, 1, 1001 + i, 1.0)
    assert kernels.apply_event(book, 0, CLEAR | flags, px, 0.0, 2) == Code.OK
    assert [tick for tick, _ in top(book, 0)] == bids
    assert [tick for tick, _ in top(book, 1)] == asks
    put(book, 0, 500, 1.0)  # the book still works, wherever its ladders are now
    put(book, 1, 5000, 1.0)
    assert top(book, 0)[-1] == (500, 1.0)
    assert top(book, 1)[-1] == (5000, 1.0)


@pytest.mark.parametrize(
    ("ev", "px", "qty"),
    [
        (DEPTH | BUY, float("nan"), 1.0),
        (SNAPSHOT | SELL, 1.0, float("inf")),
        (DEPTH | BUY, -0.1, 1.0),
        (DEPTH, 1.0, 1.0),
        (DEPTH | BUY | SELL, 1.0, 1.0),
        (TRADE | BUY, 1.0, -1.0),
        (CLEAR | BUY, -1.0, 0.0),
    ],
)
def test_a_bad_event_is_a_code(ev: int, px: float, qty: float) -> None:
    book = new_book([0.1])
    assert kernels.apply_event(book, 0, ev, px, qty, 5) == Code.BOOK_BAD_EVENT
    assert kernels.best(book, 0) == (NO_BID, 0.0, NO_ASK, 0.0)
    with pytest.raises(BookError, match=r"row 3: .*negative or not finite"):
        raise_code(Code.BOOK_BAD_EVENT, "row 3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0],), "tick_sizes\\[0\\]: expected a number above 0, got 0.0"),
        (([0.1, float("nan")],), "tick_sizes\\[1\\]"),
        (([0.1], 5000), "ladder_ticks: expected a power of two, at least 4096, got 5000"),
        (([0.1], 4096, 4), "far_capacity: expected a power of two, at least 8, got 4"),
    ],
)
def test_new_book_refuses_what_it_cannot_hold(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_book(*arguments)


def digest_of_a_session(n: int = 1500) -> str:
    """SHA-256 over the codes, the top levels and the whole state after a seeded wild session."""
    source = random.Random(7)
    book = new_book([0.1], ladder_ticks=4096, far_capacity=64)
    ticks, qtys = np.zeros(20, np.int64), np.zeros(20)
    digest = hashlib.sha256()
    mid = 600_000
    for i in range(n):
        mid += source.choice((0, 0, 3, -3, 2500, -2500))
        side = source.choice((BUY, SELL))
        kind = source.choice(
            (DEPTH,) * 20 + (TRADE, CLEAR | BUY | SELL if i % 500 == 499 else DEPTH)
        )
        tick = max(0, mid + source.randint(-60, 60) * source.choice((1, 1, 1, 50)))
        qty = source.choice((0.0, 1.5, 2.0))
        code = kernels.apply_event(book, 0, kind | side, tick * 0.1, qty, i)
        count = kernels.top_levels(book, 0, i & 1, 20, ticks, qtys)
        digest.update(np.array([code, count, *ticks, *kernels.best(book, 0)], np.float64).tobytes())
    for array in book:
        digest.update(array.tobytes())
    assert book.head[0, REANCHORS] > 10
    assert book.head[0, FAR_BID] + book.head[0, FAR_ASK] > 0
    assert book.head[0, LEVELS_BID] + book.head[0, LEVELS_ASK] > 0
    assert book.head[0, ANCHOR_BID] != book.head[0, ANCHOR_ASK]
    return digest.hexdigest()


def test_without_jit_the_state_is_the_same_to_the_byte() -> None:
    code = "import test_book_kernels as t; print(t.digest_of_a_session())"
    environment = dict(
        os.environ,
        NUMBA_DISABLE_JIT="1",
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]),
    )
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip() == digest_of_a_session()
