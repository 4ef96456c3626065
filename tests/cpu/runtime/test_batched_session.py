"""Sessions of many symbols whose engines share a host: the same signals, orders, faults."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sessions import BTC, T, market, market_file, settings, tiny_model, tiny_spec
from tickrt.cli import main
from tickrt.compile.codes import ENGINE_MAX_BATCH, RECORD_ORDER, RECORD_ROW
from tickrt.config import SessionConfig
from tickrt.errors import Code, ConfigError, IncompatibleError
from tickrt.memory.ring import Ring
from tickrt.runtime.backends.mailbox.batch import BatchedEngine
from tickrt.runtime.session import Session

SYMBOLS = ("A", "B", "C")
BATCHES = 80


def session_config(folder: Path, **changes: Any) -> SessionConfig:
    """A strategy on each of three symbols; B's book starts anew in the middle."""
    data, strategies = [], []
    for i, symbol in enumerate(SYMBOLS):
        clear_at = BATCHES // 2 if symbol == "B" else -1
        instrument = replace(BTC, symbol=symbol)
        path = folder / f"{symbol}.npz"
        data.append(market_file(path, BATCHES, seed=i, clear_at=clear_at, instrument=instrument))
        strategies.append(settings(folder, name=f"on {symbol}", symbol=symbol))
    options = {"deadline_us": 1e7, "backend": "reference", **changes}
    return SessionConfig(data=tuple(data), strategies=tuple(strategies), **options)


def signals(session: Session) -> np.ndarray:
    found = session.signals()
    return found[np.lexsort((found["seq"], found["strategy"]))]


FIELDS = ["strategy", "symbol", "seq", "ts_ns", "code", "mode"]
OUTPUTS = ["p_down", "p_flat", "p_up"]


@pytest.mark.parametrize("backend", ["reference", "onnxruntime"])
def test_every_symbol_decides_on_what_it_would_alone(backend: str, tmp_path: Path) -> None:
    runs = []
    for max_batch in (1, 2, 128):
        made = session_config(tmp_path, backend=backend, max_batch=max_batch, split=False)
        with Session(made) as session:
            report = session.run()
            runs.append(signals(session))
            shared = {isinstance(e, BatchedEngine) for e in session.assembly.engines}
            assert shared == {max_batch > 1}
            assert (report.faults, report.rows) == (0, 3 * BATCHES)
            assert report.orders > 0
            assert report.fills > 0
    for found in runs[1:]:
        for field in FIELDS:
            np.testing.assert_array_equal(found[field], runs[0][field])
        for field in OUTPUTS:
            tolerance = 0.0 if backend == "reference" else 1e-6
            np.testing.assert_allclose(found[field], runs[0][field], rtol=0, atol=tolerance)


def test_a_bundle_of_whole_windows_runs_in_batches(tmp_path: Path) -> None:
    """Its signature holds for its format, whatever kernel of the host runs it."""
    made = session_config(tmp_path, backend="onnxruntime", split=False)
    model = Path(str(made.strategies[0].model))
    out = tmp_path / "whole.bundle"
    command = ["build", str(model), "-o", str(out), "--backend", "onnxruntime", "--no-split"]
    assert main([*command, "--json"]) == 0
    strategies = tuple(s.model_copy(update={"model": str(out)}) for s in made.strategies)
    runs = []
    for max_batch in (1, 8):
        changes = {"strategies": strategies, "allow_unsigned": True, "max_batch": max_batch}
        with Session(made.model_copy(update=changes)) as session:
            report = session.run()
            runs.append(signals(session))
            assert report.faults == 0
            # What follows a batch is one stretch of time, whenever its answers have come.
            assert report.latency_us["advance"].count == 3 * BATCHES
    for field in OUTPUTS:
        np.testing.assert_allclose(runs[1][field], runs[0][field], rtol=0, atol=1e-6)


def test_rows_and_orders_of_a_symbol_keep_their_order(tmp_path: Path) -> None:
    with Session(session_config(tmp_path)) as session:
        session.run()
        rows, orders = session.records(RECORD_ROW), session.records(RECORD_ORDER)
        flights = session.assembly.loop.flights
    for symbol in range(len(SYMBOLS)):
        mine = rows[rows["symbol"] == symbol]
        assert (np.diff(mine["seq"]) == 1).all()
        assert len(mine) == BATCHES
        assert (np.diff(orders[orders["symbol"] == symbol]["seq"]) >= 0).all()
        queue = session.assembly.gateway.orders
        assert queue.consumed == queue.published > 0  # all were answered
    assert flights.total[0] == 0
    assert (flights.head == flights.tail).all()


def burst_session(folder: Path, ring: Ring, **changes: Any) -> Session:
    made = session_config(folder, **changes)
    markets = [replace(BTC, symbol=symbol) for symbol in SYMBOLS]
    return Session(made, feed=(ring.view, markets))


def interleaved() -> np.ndarray:
    """Batch by batch, the symbols in turn: each burst is all of them at the same time."""
    markets = [market(BATCHES, seed=i, symbol=i) for i in range(len(SYMBOLS))]
    events = np.concatenate(markets)
    return events[np.argsort(events["local_ts"], kind="stable")]


def test_what_comes_in_a_burst_goes_to_the_host_together(tmp_path: Path) -> None:
    ring = Ring.local(1 << 14)
    with burst_session(tmp_path, ring) as session:
        events = interleaved()
        assert ring.publish(events) == len(events)
        ring.close()
        report = session.run()
        (engine, *_) = session.assembly.engines
        assert isinstance(engine, BatchedEngine)
        served = engine.host.stats()
    assert report.signals == len(SYMBOLS) * (BATCHES - T + 1)
    assert served["rows"] == len(SYMBOLS) * BATCHES
    assert served["answers"] == report.signals
    assert 1 < served["rows_max"] <= len(SYMBOLS) * T
    assert served["messages"] < served["rows"]
    assert ring.consumed == ring.published


def test_a_host_that_dies_sends_every_symbol_to_its_fallback(tmp_path: Path) -> None:
    with Session(session_config(tmp_path)) as session:
        (engine, *_) = session.assembly.engines
        assert isinstance(engine, BatchedEngine)
        os.kill(engine.host.pid, signal.SIGKILL)
        report = session.run()
        found = session.signals()
    for strategy in range(len(SYMBOLS)):
        assert Code.ENGINE_FAILED in found[found["strategy"] == strategy]["code"]
    failed = "ENGINE_FAILED: its host was ended by signal 9"
    assert sum(failed in note for note in report.notes) == len(SYMBOLS)


def test_answers_that_come_too_late_are_faults_of_their_rows(tmp_path: Path) -> None:
    with Session(session_config(tmp_path, deadline_us=0.001)) as session:
        report = session.run()
        found = session.signals()
    assert report.faults == len(SYMBOLS) * (BATCHES - T + 1) - (T - 1)
    assert set(found["code"].tolist()) == {Code.ENGINE_TIMEOUT}


def test_two_models_are_two_groups(tmp_path: Path) -> None:
    made = session_config(tmp_path)
    tiny_model(tiny_spec(tmp_path, T), tmp_path / "other.onnx", seed=2)
    more = [
        settings(tmp_path, name=f"other {s}", symbol=s, model=str(tmp_path / "other.onnx"))
        for s in SYMBOLS[:2]
    ]
    made = made.model_copy(update={"strategies": (*made.strategies, *more)})
    with Session(made) as session:
        report = session.run()
        engines = session.assembly.engines
        lanes = session.assembly.loop.engines.lane
        hosts = {e.host.pid for e in engines if isinstance(e, BatchedEngine)}
    assert report.faults == 0
    assert len(hosts) == len(set(lanes.tolist())) == 2
    assert sorted(np.bincount(lanes).tolist()) == [2, 3]


def test_one_symbol_has_a_host_of_its_own(tmp_path: Path) -> None:
    made = session_config(tmp_path)
    alone = made.model_copy(update={"strategies": made.strategies[:1]})
    with Session(alone) as session:
        (engine,) = session.assembly.engines
        assert engine.handle()[ENGINE_MAX_BATCH] == 1


def test_a_model_of_one_window_is_refused_with_what_to_do(tmp_path: Path) -> None:
    tiny_model(tiny_spec(tmp_path, T), tmp_path / "tiny.onnx", batch=1)
    with pytest.raises(IncompatibleError, match=r"fixed batch 1: export.*max_batch = 1"):
        Session(session_config(tmp_path, backend="onnxruntime", max_batch=8))


def test_carried_state_is_no_window(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_batch = 8 runs whole windows"):
        Session(session_config(tmp_path, backend="onnxruntime", max_batch=8, stateful=True))


def test_the_command_says_what_shares_a_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = session_config(tmp_path)
    file = tmp_path / "session.toml"
    lines = [f"data = {json.dumps([str(path) for path in made.data])}"]
    for strategy in made.strategies:
        lines += ["[[strategies]]", f'model = "{strategy.model}"', f'spec = "{strategy.spec}"']
        lines += [f'symbol = "{strategy.symbol}"']
    file.write_text("\n".join(lines))
    command = ["run", str(file), "--backend", "onnxruntime", "--max-batch", "2", "--json"]
    assert main([*command, "--deadline-us", "1e7", "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"]["details"]["batch_of"] == 3
    assert report["engine"]["details"]["max_batch"] == 2
