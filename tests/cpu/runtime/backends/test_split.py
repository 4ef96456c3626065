"""A split model gives the whole model's signals, tick by tick, through resets and faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.engine_bench import Bench, do_advance, do_poll, do_reset, do_submit, outputs
from helpers.sessions import BTC, config, market, market_file, settings, tiny_model, tiny_spec
from tickrt.compile.codes import BATCH_END, CLEAR, DEPTH, EXCH, KIND_MASK, LOCAL, SELL
from tickrt.engines.graph.check import LoopModel, loop_model, read_model
from tickrt.engines.split.plan import SplitPlan, plan
from tickrt.errors import Code, ConfigError
from tickrt.market.event_file import save_events
from tickrt.models.architectures.zoo import recurrent
from tickrt.runtime.backends.onnxruntime import kernels as split_kernels
from tickrt.runtime.backends.onnxruntime.split import SplitEngine
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams

T, F = 4, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tickrt.engines.split.plan.cache_folder", (tmp_path / "cache").joinpath)
    return tmp_path / "cache"


def lstm(kind: str = "LSTM") -> LoopModel:
    return loop_model(recurrent(kind, 2, 6, T, F, seed=3).SerializeToString(), f"{kind}.onnx")


def made(mode: str, tmp_path: Path) -> tuple[LoopModel, SplitPlan]:
    if mode == "flat":
        model = read_model(tiny_model(tiny_spec(tmp_path, T), tmp_path / "m.onnx"))
        return model, plan(model)
    model = lstm("GRU" if mode == "gru" else "LSTM")
    found = plan(model, stateful=mode == "carry")
    assert found.usable, found.why_not
    chosen: Any = {"gru": "bank"}.get(mode, mode)
    return model, replace(found, mode=chosen)


class Whole:
    """The whole model on the newest T rows, in ONNX Runtime's Python API."""

    def __init__(self, model: LoopModel) -> None:
        self.session = onnxruntime.InferenceSession(model.content)
        self.rows: list[np.ndarray] = []

    def __call__(self, window: int = T) -> np.ndarray:
        return self.session.run(None, {"rows": np.stack(self.rows[-window:])[None]})[0][0]


@pytest.mark.parametrize("mode", ["flat", "pre", "bank", "gru"])
def test_it_equals_the_whole_model_on_every_window(mode: str, tmp_path: Path) -> None:
    model, found = made(mode, tmp_path)
    bench = Bench(lambda ring: SplitEngine(model, found, ring), model.width)
    whole, rng, compared = Whole(model), np.random.default_rng(1), 0
    for seq in range(1, 60):
        if seq in (23, 25, 40):  # the stream starts anew, once before a window was complete
            do_reset(bench.table)
            whole.rows.clear()
        row = rng.normal(size=model.width).astype(np.float32)
        bench.write(seq, row)
        whole.rows.append(row)
        if len(whole.rows) >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert do_poll(bench.table, seq) == Code.OK
            np.testing.assert_allclose(outputs(bench.table), whole(), rtol=1e-5, atol=1e-6)
            compared += 1
        before = outputs(bench.table)
        assert do_advance(bench.table, seq) == Code.OK
        assert outputs(bench.table) == before  # the step that warms the cache goes elsewhere
    assert compared > 40
    assert bench.engine.describe()["waits"] == 0
    bench.engine.close()


def test_carried_state_is_that_of_all_rows_since_the_start(tmp_path: Path) -> None:
    model, found = made("carry", tmp_path)
    long = 30
    grown = recurrent("LSTM", 2, 6, long, F, seed=3)
    endless = onnxruntime.InferenceSession(grown.SerializeToString())
    bench = Bench(lambda ring: SplitEngine(model, found, ring), F)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(long, F)).astype(np.float32)
    for seq in range(1, long + 1):
        bench.write(seq, rows[seq - 1])
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
        if seq == long:
            (expected,) = endless.run(None, {"rows": rows[None]})
            np.testing.assert_allclose(outputs(bench.table), expected[0], rtol=1e-5, atol=1e-6)
        assert do_advance(bench.table, seq) == Code.OK
    bench.engine.close()


@pytest.mark.parametrize(
    ("mode", "missed", "waits"),
    [
        # 4: only two rows were advanced before it; 5, 7, 9, 11: the row before was not.
        ("pre", {2, 4, 6, 8, 10}, 5),
        # A bank must be built up again: 10 to 13 (two rows missed), 21 to 23.
        ("bank", {9, 10, 20}, 7),
    ],
)
def test_missed_rows_cost_time_on_the_path_never_a_wrong_signal(
    mode: str, missed: set[int], waits: int, tmp_path: Path
) -> None:
    model, found = made(mode, tmp_path)
    bench = Bench(lambda ring: SplitEngine(model, found, ring), F)
    whole, rng = Whole(model), np.random.default_rng(4)
    for seq in range(1, 12 if mode == "pre" else 30):
        row = rng.normal(size=F).astype(np.float32)
        bench.write(seq, row)
        whole.rows.append(row)
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            np.testing.assert_allclose(outputs(bench.table), whole(), rtol=1e-5, atol=1e-6)
        if seq not in missed:
            do_advance(bench.table, seq)
    assert bench.engine.describe()["waits"] == waits
    bench.engine.close()


def test_failure_of_a_graph_is_kept_until_read(tmp_path: Path) -> None:
    model, found = made("pre", tmp_path)
    bench = Bench(lambda ring: SplitEngine(model, found, ring), F)
    ctx = bench.engine._ctx  # type: ignore[attr-defined]
    column = (split_kernels.STEP + split_kernels.BLOCK_N_INPUTS) // 8
    inputs = int(ctx[column])
    ctx[column] = 0
    assert do_submit(bench.table, T) == Code.ENGINE_FAILED
    ctx[column] = inputs
    assert do_submit(bench.table, T) == Code.ENGINE_FAILED
    assert bench.engine.error()
    assert do_submit(bench.table, T) == Code.OK
    bench.engine.close()


def test_orders_are_the_same_with_and_without_split(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 300, clear_at=150)
    runs = []
    for split in (True, False):
        strategies = settings(tmp_path), settings(tmp_path, policy=MakerParams())
        with Session(config(tmp_path, data, *strategies, split=split)) as session:
            report = session.run()
            assert (report.engine.split is not None) is split
            assert [svg[:4] for svg in report.graphs.values()] == ["<svg"] * split
            intents = session.intents()
            signal = intents["signal"].copy()
            intents["signal"] = 0
            runs.append((intents.tobytes(), signal))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-5, atol=1e-6)


def emptied(data: np.ndarray, batch: int) -> np.ndarray:
    """`data` with every ask deleted at the end of that batch, by ordinary depth events."""
    last = int(np.flatnonzero(data["ev"] & np.uint64(BATCH_END))[batch])
    asks = sorted({float(e["px"]) for e in data[: last + 1] if int(e["ev"]) & SELL})
    more = np.repeat(data[last], len(asks))
    more["ev"], more["px"], more["qty"] = DEPTH | SELL | LOCAL | EXCH, asks, 0.0
    more["ev"][-1] |= np.uint64(BATCH_END)
    data = data.copy()
    data["ev"][last] &= ~np.uint64(BATCH_END)
    return np.concatenate([data[: last + 1], more, data[last + 1 :]])


@pytest.mark.parametrize("mode", ["pre", "bank"])
def test_two_symbols_with_gaps_and_an_emptied_side(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, path, files = tiny_spec(tmp_path, T), tmp_path / "r.onnx", []
    model = recurrent("LSTM", 2, 6, T, spec.width, seed=3)
    onnx.helper.set_model_props(model, {"tickrt.feature_hash": spec.hash})
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(
        "tickrt.engines.split.plan.plan", lambda m, stateful: replace(plan(m), mode=mode)
    )
    for i, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        data = market(120, seed=i, start_ns=10**9 + 13 * i, clear_at=60 + 20 * i)
        for batch in (100, 99, 45, 41, 2 + i):
            data = emptied(data, batch)
        instrument = replace(BTC, symbol=symbol).to_dict()
        files.append(save_events(tmp_path / f"{symbol}.npz", data, {"instrument": instrument}))
    chosen = [settings(tmp_path, model=str(path), symbol=s) for s in ("BTCUSDT", "ETHUSDT")]
    runs = []
    for split in (True, False):
        changed = {"data": tuple(files), "split": split}
        with Session(config(tmp_path, files[0], *chosen).model_copy(update=changed)) as session:
            report = session.run()
            assert report.rows == 2 * (120 - 5)
            if split:
                assert [engine.describe()["waits"] for engine in session.assembly.engines] == [0, 0]
            runs.append(session.signals())
    assert len(runs[0]) == len(runs[1]) < 2 * (120 - 5)
    for name in ("seq", "symbol"):
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    for name in ("p_down", "p_flat", "p_up"):
        np.testing.assert_allclose(runs[0][name], runs[1][name], rtol=1e-5, atol=1e-6)


def test_plan_is_kept_and_a_damaged_one_is_made_again(own_cache: Path) -> None:
    model = lstm()
    first = plan(model)
    (entry,) = (own_cache / "split").iterdir()
    again = plan(model)
    assert (again.step, again.mode, again.figures) == (first.step, first.mode, first.figures)
    assert [b.name for b in again.bank] == [b.name for b in first.bank]
    (entry / "plan.json").write_text("{")
    assert plan(model).step == first.step
    assert (entry / "plan.json").read_text() != "{"


def recurrent_file(path: Path, width: int, hash_: str, direction: str = "forward") -> Path:
    """An LSTM on the tiny spec; read backwards, its last position depends on nothing else."""
    model = recurrent("LSTM", 2, 6, T, width, seed=3)
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.attribute.append(onnx.helper.make_attribute("direction", direction))
    onnx.helper.set_model_props(model, {"tickrt.feature_hash": hash_})
    path.write_bytes(model.SerializeToString())
    return path


def test_carried_state_does_not_cross_a_gap(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, T)
    model = recurrent_file(tmp_path / "carry.onnx", spec.width, spec.hash)
    whole = market(80, clear_at=40)
    starts = np.flatnonzero((whole["ev"] & KIND_MASK) == CLEAR)
    assert len(starts) == 2
    signals = []
    for name, events in (("whole", whole), ("after", whole[starts[1] :])):
        data = save_events(tmp_path / f"{name}.npz", events, {"instrument": BTC.to_dict()})
        chosen = settings(tmp_path, model=str(model))
        with Session(config(tmp_path, data, chosen, stateful=True)) as session:
            report = session.run()
            assert report.engine.split == "carry"
            done = session.signals()
            signals.append(done["p_up"].copy())
    assert len(signals[1]) == 40 - (T - 1)
    np.testing.assert_array_equal(signals[0][-len(signals[1]) :], signals[1])


def test_model_that_cannot_be_split_runs_whole(tmp_path: Path) -> None:
    data, spec = market_file(tmp_path / "m.npz", 20), tiny_spec(tmp_path, T)
    path = recurrent_file(tmp_path / "reverse.onnx", spec.width, spec.hash, "reverse")
    chosen = settings(tmp_path, model=str(path))
    assert plan(read_model(path), stateful=True).why_not
    with pytest.raises(ConfigError, match="cannot run with carried state"):
        Session(config(tmp_path, data, chosen, stateful=True))
    with pytest.raises(ConfigError, match="drop --no-split"):
        Session(config(tmp_path, data, chosen, stateful=True, split=False))
    with Session(config(tmp_path, data, chosen)) as session:
        assert session.run().signals == 20 - (T - 1)
