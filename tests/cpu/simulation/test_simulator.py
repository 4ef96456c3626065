"""The queue-reactive simulator: same bytes everywhere, never a crossed book, honest limits."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tickrt.compile.codes import (
    BATCH_END,
    BUY,
    CLEAR,
    DEPTH,
    EXCH,
    KIND_MASK,
    LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.errors import ConfigError
from tickrt.market.book import new_book
from tickrt.market.event_file import load_events, save_events
from tickrt.market.instrument import Instrument
from tickrt.market.kernels import LEVELS_ASK, LEVELS_BID, apply_event, best
from tickrt.simulation import queue_kernels as queues
from tickrt.simulation.simulator import Simulator, from_document, load_calibration, simulate
from tickrt.simulation.stylised_facts import as_markdown

# Of `simulate(events=3000, seed=7)`; changes only together with GENERATOR or the calibration.
GOLDEN = "95fdb914c4e594de908dd872cad105d6bdbd960c8f0a5c063e63cc02e0a8ad79"


def _digest(events: np.ndarray) -> str:
    return hashlib.sha256(events.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def session() -> np.ndarray:
    return simulate(events=30_000, seed=5)[0]


def test_same_seed_same_bytes_on_every_machine():
    assert _digest(simulate(events=3000, seed=7)[0]) == GOLDEN
    assert _digest(simulate(events=3000, seed=8)[0]) != GOLDEN


def test_plain_python_gives_the_same_bytes():
    code = (
        "import hashlib; from tickrt.simulation.simulator import simulate;"
        "print(hashlib.sha256(simulate(events=3000, seed=7)[0].tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == GOLDEN


def test_chunks_do_not_change_the_stream(session):
    simulator = Simulator(5)
    parts = []
    while sum(map(len, parts)) < len(session):
        parts.append(simulator.chunk(777).copy())
    joined = np.concatenate(parts)
    assert joined[: len(session)].tobytes() == session.tobytes()
    assert simulator.meta(len(joined))["seconds"] == pytest.approx(simulator.elapsed_ns / 1e9)


def test_starts_with_clear_and_snapshot_as_one_message(session):
    kind = session["ev"] & KIND_MASK
    end = int(np.flatnonzero(session["ev"] & BATCH_END)[0])
    assert kind[:2].tolist() == [CLEAR, CLEAR]
    assert set(kind[2 : end + 1].tolist()) == {SNAPSHOT}
    assert set(kind[end + 1 :].tolist()) == {DEPTH, TRADE}
    assert len(set(session["local_ts"][: end + 1].tolist())) == 1


def test_every_event_has_both_times_both_readers_and_a_side(session):
    ev = session["ev"]
    assert np.all(ev & (LOCAL | EXCH) == LOCAL | EXCH)
    assert np.all(((ev & BUY) != 0) ^ ((ev & SELL) != 0))
    assert np.all(np.diff(session["exch_ts"]) >= 0)
    assert np.all(np.diff(session["local_ts"]) >= 0)
    assert np.all(session["exch_ts"] < session["local_ts"])
    assert ev[-1] & BATCH_END
    ends = np.flatnonzero(ev & BATCH_END)
    for first, last in zip(np.r_[0, ends[:-1] + 1], ends, strict=True):
        assert np.all(session["exch_ts"][first : last + 1] == session["exch_ts"][last])
    trades = session[(ev & KIND_MASK) == TRADE]
    assert np.all(trades["qty"] >= 1)
    assert np.all(trades["ev"] & BATCH_END)


def test_book_is_never_crossed_and_always_deep(session):
    book = new_book([0.1])
    settled = False
    for i in range(len(session)):
        row = session[i]
        code = apply_event(
            book, 0, int(row["ev"]), float(row["px"]), float(row["qty"]), int(row["local_ts"])
        )
        assert code >= 0
        settled = settled or bool(row["ev"] & BATCH_END)
        if settled:
            bid, _, ask, _ = best(book, 0)
            assert bid < ask, f"event {i}"
            assert min(book.head[0, LEVELS_BID], book.head[0, LEVELS_ASK]) > 150


def test_trades_are_at_the_best_prices_and_leave_the_book(session):
    """What trades is there: a level gives at most what it shows, from the best price outward."""
    levels: dict[tuple[int, float], float] = {}
    taken: dict[tuple[int, float], float] = {}
    checked = 0
    for row in session:
        kind, bid = int(row["ev"]) & KIND_MASK, bool(row["ev"] & BUY)
        if kind == TRADE:
            key = (0 if row["ev"] & SELL else 1, float(row["px"]))
            taken[key] = taken.get(key, 0.0) + float(row["qty"])
        elif kind in (DEPTH, SNAPSHOT):
            key = (0 if bid else 1, float(row["px"]))
            if key in taken:
                checked += 1
                del taken[key]
            levels[key] = float(row["qty"])
            if row["ev"] & BATCH_END:
                assert not taken, "a traded level is in the next depth message"
    assert checked > 50


def test_length_by_seconds_and_progress():
    seen: list[float] = []
    events, meta = simulate(20.0, seed=3, symbol="ABC", progress=seen.append)
    span = int(events["exch_ts"][-1] - events["exch_ts"][0])
    assert 19.5e9 < span <= 20e9
    assert seen[-1] == 1.0
    assert meta["symbol"] == meta["instrument"]["symbol"] == "ABC"
    assert meta["seconds"] == 20.0
    assert meta["seed"] == 3
    assert Instrument.from_dict(meta["instrument"]).tick_size == 0.1


def test_file_round_trip(tmp_path, session):
    _, meta = simulate(events=1, seed=5)
    path = save_events(tmp_path / "sim.npz", session, meta)
    loaded = load_events(path)
    assert loaded.data.tobytes() == session.tobytes()
    assert loaded.meta["seed"] == 5
    assert loaded.instrument is not None
    assert loaded.instrument.contract == "inverse"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "either"),
        ({"seconds": 1.0, "events": 5}, "either"),
        ({"seconds": -1.0}, "positive"),
        ({"seconds": float("nan")}, "positive"),
        ({"events": 0}, "positive"),
        ({"events": 5, "calibration": "moon"}, "btcusd_perp"),
    ],
)
def test_wrong_arguments_say_how(arguments, text):
    with pytest.raises(ConfigError, match=text):
        simulate(**arguments)


def test_broken_calibration_is_a_config_error(tmp_path: Path):
    path = tmp_path / "calibration_x.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ConfigError, match="not a calibration"):
        load_calibration(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="not a calibration"):
        load_calibration(path)
    document = copy.deepcopy(load_calibration().document)
    document["sizes"]["new"] = document["sizes"]["new"][:-1]
    with pytest.raises(ValueError, match="shape"):
        from_document(document)


def test_lists_and_totals_stay_exact():
    simulator = Simulator(11)
    for _ in range(20):
        simulator.chunk(2000)
        state, params = simulator._state[0], simulator._params[0]
        reference = int(state["scalar"][queues.REFERENCE])
        mask = state["lots"].shape[1] - 1
        assert int(state["scalar"][queues.MOVES]) >= 0
        for side in range(2):
            total = 0
            for d, c in enumerate(params["cell"]):
                slot = (reference - d if side == 0 else reference + 1 + d) & mask
                lots = int(state["lots"][side, slot])
                if lots == 0:
                    assert state["group"][side, slot] == -1
                    total += int(params["new"][c]) + int(params["blink"][c])
                    continue
                size_bin = int((lots > params["bin_edge"][c]).sum())
                bins = params["level_rate"].shape[1]
                assert state["group"][side, slot] == c * bins + size_bin
                total += int(params["level_rate"][c, size_bin])
            assert total == state["total"][side] == state["cell_rate"][side].sum()
            assert (state["group"][side] >= 0).sum() == state["count"][side].sum()
    assert state["scalar"][queues.MOVES] > 20


def test_price_never_walks_to_zero():
    document = copy.deepcopy(load_calibration().document)
    depth = document["cells"][-1]
    document["start_tick"] = 4 * depth + 20
    events, _ = simulate(events=200_000, seed=2, calibration=from_document(document))
    prices = events["px"][(events["ev"] & KIND_MASK) != CLEAR]
    assert prices.min() > 0


def test_recorded_and_simulated_facts_are_stored_and_close():
    """The fit that ships: what the docs' table says; wide bounds, it is a model."""
    fit = load_calibration().document["fit"]
    for name, ratio in {
        "depth changes per s": 1.15,
        "market orders per s": 1.2,
        "mid changes per 100 ms": 1.2,
        "volatility 1 s, ticks": 1.3,
        "level 1: mean lots": 1.3,
        "level 20: ticks from the best": 1.15,
        "level 100: ticks from the best": 1.15,
    }.items():
        real, simulated = fit["real"][name], fit["simulated"][name]
        assert max(real, simulated) <= ratio * min(real, simulated), name


def test_docs_show_the_stored_fit():
    page = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert as_markdown(load_calibration().document["fit"]) in page
