"""Calibration: what is counted from a market whose numbers are known is what was put in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tickrt.compile.codes import BATCH_END, BUY, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT, TRADE
from tickrt.errors import DataError
from tickrt.market.event_file import save_events
from tickrt.market.instrument import Instrument
from tickrt.memory.records import EVENT_DTYPE
from tickrt.simulation import calibrate as calibrating
from tickrt.simulation.simulator import from_document, load_calibration, simulate
from tickrt.simulation.stylised_facts import as_markdown, facts, survey

CELLS = np.array([0, 1, 5, 50], np.int64)
BINS = np.array([[10], [10], [10]], np.int64)


def _events(messages):
    """Messages of (kind | side, tick, lots); one per 10 ms; tick size 1."""
    rows = []
    for i, message in enumerate(messages):
        for j, (flags, tick, lots) in enumerate(message):
            end = BATCH_END if j == len(message) - 1 else 0
            ts = (i + 1) * 10_000_000
            rows.append((flags | end | LOCAL | EXCH, ts, ts + 1000, tick, lots, 0, 0, 0.0))
    return np.array(rows, EVENT_DTYPE)


BOOK = [(SNAPSHOT | BUY, 100, 20), (SNAPSHOT | BUY, 97, 5), (SNAPSHOT | SELL, 101, 8)]
BOOK += [(SNAPSHOT | SELL, 104, 30), (SNAPSHOT | SELL, 109, 3)]
NEW, BLINK, MORE, LESS, DELETE, TOUCH, FOLLOW, REFILL, LEFT = range(9)


def _records(*messages):
    seen = survey(_events([BOOK, *messages]), 1.0, 1.0, CELLS, BINS)
    return [tuple(row) for row in seen.records.tolist()], seen


def test_each_kind_of_change_is_told_apart():
    records, seen = _records(
        [(DEPTH | BUY, 98, 7), (DEPTH | BUY, 97, 9), (DEPTH | SELL, 104, 15)],
        [(DEPTH | BUY, 98, 0), (DEPTH | SELL, 104, 15), (DEPTH | SELL, 120, 0)],
    )
    assert records == [
        (NEW, 1, 0, 7),
        (MORE, 1, 0, 4),
        (LESS, 1, 1, 500),
        (DELETE, 1, 0, 7),
        (TOUCH, 1, 1, 15),
        (BLINK, 2, 0, 0),
    ]
    assert seen.exposure.sum() == pytest.approx(5 * 0.01 + 6 * 0.01)


def test_a_decrease_that_trades_explain_is_no_cancellation():
    records, seen = _records(
        [(TRADE | SELL, 100, 6)],
        [(DEPTH | BUY, 100, 14)],  # all of it traded: no event of the level
        [(TRADE | SELL, 100, 4)],
        [(DEPTH | BUY, 100, 3)],  # 4 of 11 traded: 7 were cancelled
        [(TRADE | SELL, 100, 2)],
        [(DEPTH | BUY, 100, 6)],  # 2 traded, so 5 arrived
    )
    assert records == [(LESS, 0, 1, 500), (MORE, 0, 0, 5)]
    assert seen.orders[:, 2].tolist() == [6, 4, 2]
    assert seen.orders[:, 1].tolist() == [300, 285, 666]


def test_a_market_order_that_empties_the_best_moves_the_reference():
    records, seen = _records(
        [(TRADE | BUY, 101, 8)],
        [(TRADE | BUY, 104, 1)],
        [(DEPTH | SELL, 101, 0), (DEPTH | SELL, 104, 29), (DEPTH | BUY, 103, 40)],
    )
    assert (FOLLOW, 0, 0, 40) in records
    assert seen.moves.tolist() == [[0, 3, 3]]
    assert seen.orders.tolist() == [[0, 1125, 9, 2, 1]]


def test_a_gap_that_closes_back_is_a_refill():
    records, seen = _records(
        [(DEPTH | SELL, 101, 0)],
        [(DEPTH | SELL, 101, 12)],
    )
    assert records == [(DELETE, 0, 0, 8), (REFILL, 0, 0, 12)]
    assert seen.moves[:, 0].tolist() == [1, 3]


def test_files_that_cannot_be_counted_are_refused():
    events = _events([BOOK, [(DEPTH | BUY, 98, 7)]])
    with pytest.raises(DataError, match="snapshot"):
        survey(events[len(BOOK) :], 1.0, 1.0, CELLS, BINS)
    bare = events.copy()
    bare["ev"] &= ~np.uint64(BATCH_END)
    with pytest.raises(DataError, match="BATCH_END"):
        survey(bare, 1.0, 1.0, CELLS, BINS)
    empty = _events([BOOK, [(DEPTH | BUY, 100, 0), (DEPTH | BUY, 97, 0)]])
    with pytest.raises(DataError, match="empty"):
        survey(empty, 1.0, 1.0, CELLS, BINS)


@pytest.fixture(scope="module")
def simulated():
    return simulate(600.0, seed=21)


def test_what_was_put_in_is_counted_out(simulated):
    """Rates of the queues behind the best come back; the best queue's are seen merged."""
    events, _ = simulated
    document = load_calibration().document
    cells = np.array(document["cells"], np.int64)
    edges = np.array(document["bin_edges"], np.int64)
    rates = calibrating._rates(survey(events, 0.1, 1.0, cells, edges))
    for name in ("new", "delete"):
        put_in, out = np.array(document["rates"][name]), rates[name]
        if put_in.ndim == 2:
            put_in, out = put_in[:, 0], out[:, 0]
        assert np.all(np.abs(np.log(out[5:15] / put_in[5:15])) < 0.35), name


def test_command_writes_a_calibration_that_loads(tmp_path, capsys, monkeypatch):
    events, meta = simulate(90.0, seed=22)
    monkeypatch.setattr(calibrating, "CASCADE_GRID", (0.1,))
    monkeypatch.setattr(calibrating, "REINIT_GRID", (0.0,))
    path = save_events(tmp_path / "in.npz", events, meta)
    out = tmp_path / "calibration_mine.json"
    assert calibrating.main([str(path), "-o", str(out), "--seconds", "15"]) == 0
    assert "mid changes per 100 ms" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["name"] == "mine"
    assert Instrument.from_dict(document["instrument"]).tick_size == 0.1
    again, _ = simulate(events=5000, seed=1, calibration=out)
    assert len(again) >= 5000
    assert "| spread ≤ 1 ticks |" in as_markdown(document["fit"])
    from_document(document)


def test_command_reports_a_broken_file(tmp_path, capsys):
    path = tmp_path / "bad.npz"
    path.write_bytes(b"nonsense")
    assert calibrating.main([str(path), "-o", str(tmp_path / "x.json")]) == 1
    assert "bad.npz" in capsys.readouterr().err


def test_facts_name_both_sides_of_the_comparison(simulated):
    document = load_calibration().document
    cells = np.array(document["cells"], np.int64)
    edges = np.array(document["bin_edges"], np.int64)
    here = facts(survey(simulated[0], 0.1, 1.0, cells, edges))
    assert set(document["fit"]["real"]) == set(document["fit"]["simulated"]) == set(here)
    assert all(np.isfinite(value) for value in here.values())
