"""Rows against plain numpy; window, reset and accumulators; JIT on = JIT off."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.feature_reference import Reference
from tickrt.compile.codes import BUY, DEPTH, SELL, TRADE
from tickrt.feature.kernels import make_row, on_event, reset
from tickrt.feature.spec import FeatureSpec, load_spec, parse_spec
from tickrt.feature.streams import Streams, new_streams, window
from tickrt.market.book import Book, new_book
from tickrt.market.kernels import apply_event

TICK = 0.5
MS = 1_000_000


class Session:
    """A book, the streams on it, and the same book as two dicts."""

    def __init__(self, *specs: FeatureSpec) -> None:
        self.book: Book = new_book([TICK], ladder_ticks=4096, far_capacity=1024)
        self.streams: Streams = new_streams([(0, spec, TICK) for spec in specs])
        self.sides: tuple[dict[int, float], dict[int, float]] = ({}, {})

    def event(self, ev: int, tick: int, qty: float, ts: int = 0) -> None:
        code = apply_event(self.book, 0, ev, tick * TICK, qty, ts)
        assert code >= 0
        for k in range(len(self.streams.seq)):
            on_event(self.streams, k, self.book, 0, ev, tick * TICK, qty, ts)

    def level(self, side: int, tick: int, qty: float) -> None:
        self.event(DEPTH | (SELL if side else BUY), tick, qty)
        self.sides[side][tick] = qty
        if qty == 0.0:
            del self.sides[side][tick]

    def trade(self, sign: int, qty: float) -> None:
        self.event(TRADE | (BUY if sign > 0 else SELL), 1000, qty)

    def row(self, k: int = 0, ts: int = 0) -> int:
        return int(make_row(self.streams, k, self.book, 0, ts))

    def fill(self, levels: int = 3) -> None:
        for i in range(levels):
            self.level(0, 1000 - i, 1.0 + i)
            self.level(1, 1001 + i, 2.0 + i)


def walk(seed: int, batches: int):
    """Random batches: (side, tick, qty) levels and (sign, qty) trades around a moving price."""
    rng = np.random.default_rng(seed)
    centre = 2000
    for _ in range(batches):
        step = int(rng.integers(-2, 3))
        centre += step
        levels = []
        for _ in range(int(rng.integers(1, 12))):
            side = int(rng.integers(2))
            distance = int(rng.geometric(0.05))
            qty = float(rng.choice([0.0, rng.lognormal(1, 2)]))
            levels.append((side, centre + distance if side else centre - distance, qty))
        trades = [
            (int(rng.choice([-1, 1])), float(rng.lognormal()))
            for _ in range(int(rng.integers(0, 3)))
        ]
        yield centre, levels, trades


def play(session: Session, seed: int, batches: int):
    """Drive a session over `walk`; yields after each batch (row not made yet)."""
    for n, (centre, levels, trades) in enumerate(walk(seed, batches)):
        for side in (0, 1):  # never crossed
            wrong = [t for t in session.sides[side] if (t <= centre) == (side == 1)]
            for tick in wrong:
                session.level(side, tick, 0.0)
        for side, tick, qty in levels:
            if qty or tick in session.sides[side]:
                session.level(side, tick, qty)
        for sign, qty in trades:
            session.trade(sign, qty)
        yield n, trades


@pytest.mark.parametrize("name", ["l2_100x100", "light"])
def test_rows_equal_numpy(name: str) -> None:
    spec = load_spec(name)
    session, reference = Session(spec), Reference(spec)
    made = 0
    for n, trades in play(session, 7, 300):
        ts = n * n * MS // 7
        for trade in trades:
            reference.trade(*trade)
        seq = session.row(ts=ts)
        if not session.sides[0] or not session.sides[1]:
            assert seq == 0
            reference.reset()
            continue
        made += 1
        assert seq == made
        expected = reference.row(*session.sides, ts)
        np.testing.assert_allclose(
            window(session.streams, 0)[-1], expected, rtol=2e-4, atol=2e-4, err_msg=str(spec.names)
        )
    assert made > 250


def test_window_is_the_newest_rows_in_order_without_a_copy() -> None:
    spec = parse_spec(
        {"format": 1, "name": "x", "window": 5, "columns": [{"kind": "spread"}, {"kind": "volume"}]}
    )
    session = Session(spec)
    session.fill()
    made = []
    for n in range(1, 18):
        session.trade(1, float(n))
        assert session.row() == n == session.streams.seq[0] == session.streams.count[0]
        made.append([1.0, n, n])
        view = window(session.streams, 0)
        assert view.shape == (5, 3)
        assert view.flags.c_contiguous
        assert np.shares_memory(view, session.streams.rows)
        if n >= 5:
            np.testing.assert_array_equal(view, np.array(made[-5:], np.float32))


def test_reset_makes_the_window_incomplete_but_keeps_the_row_number() -> None:
    session = Session(load_spec("light"))
    session.fill()
    session.row(ts=5)
    session.level(0, 1000, 9.0)
    session.trade(1, 3.0)
    reset(session.streams, 0)
    assert session.streams.count[0] == 0
    assert session.row(ts=9) == 2
    assert session.streams.count[0] == 1
    raw = dict(zip(load_spec("light").names, session.streams.raw, strict=False))
    assert raw["volume_unsigned"] == raw["order_flow_1"] == raw["elapsed"] == raw["return_1"] == 0


def test_a_book_without_two_sides_makes_no_row_and_resets() -> None:
    session = Session(load_spec("light"))
    session.fill(1)
    assert session.row() == 1
    session.level(1, 1001, 0.0)
    assert session.row() == 0
    assert session.streams.count[0] == 0
    session.level(1, 1001, 1.0)
    assert session.row() == 2


def test_row_on_depth_ignores_batches_of_trades_but_keeps_their_volume() -> None:
    spec = parse_spec(
        {
            "format": 1,
            "name": "x",
            "window": 2,
            "row_on": "depth",
            "columns": [{"kind": "volume", "unit": 2.0}],
        }
    )
    session = Session(spec)
    session.fill()
    assert session.row() == 1
    session.trade(-1, 3.0)
    assert session.row() == 0
    session.trade(1, 1.0)
    session.level(0, 999, 7.0)
    assert session.row() == 2
    np.testing.assert_array_equal(window(session.streams, 0)[-1], [-1.0, 2.0])


def test_several_streams_of_one_symbol_do_not_disturb_each_other() -> None:
    specs = load_spec("light"), load_spec("l2_100x100")
    both, alone = Session(*specs), [Session(spec) for spec in specs]
    for (n, _), _, _ in zip(*(play(s, 3, 60) for s in (both, *alone)), strict=True):
        for k in range(2):
            assert both.row(k, ts=n * MS) == alone[k].row(ts=n * MS)
    for k in range(2):
        np.testing.assert_array_equal(window(both.streams, k), window(alone[k].streams, 0))


def digest() -> str:
    """SHA-256 of the rows of both shipped specs over one random walk."""
    session = Session(load_spec("l2_100x100"), load_spec("light"))
    for n, _ in play(session, 11, 40):
        session.row(0, ts=n * MS)
        session.row(1, ts=n * MS)
    return hashlib.sha256(session.streams.rows.tobytes()).hexdigest()


def test_jit_off_makes_the_same_bytes() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "from test_rows import digest; print(digest())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest()
