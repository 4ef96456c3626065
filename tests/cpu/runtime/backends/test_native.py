"""A model as its own code gives the whole model's signals, or runs in ONNX Runtime and says why."""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from helpers.engine_bench import Bench, do_advance, do_poll, do_reset, do_submit, outputs
from helpers.engine_zoo import ZOO
from helpers.sessions import config, market_file, settings, tiny_model, tiny_spec
from tickrt import backends
from tickrt.engines.graph.check import LoopModel, loop_model, read_model
from tickrt.engines.native import compiler, prepare, split_figures
from tickrt.engines.native import prepared as prepared_module
from tickrt.engines.split.plan import SplitPlan, plan
from tickrt.engines.translate import RULES, TranslateError
from tickrt.errors import Code
from tickrt.models.architectures.zoo import mlp, recurrent, tcn, transformer
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.native.engine import NativeEngine
from tickrt.runtime.model_source import Source
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
T, F = 4, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tickrt"


def lstm(kind: str = "LSTM") -> LoopModel:
    return loop_model(recurrent(kind, 2, 6, T, F, seed=3).SerializeToString(), f"{kind}.onnx")


def made(mode: str, tmp_path: Path) -> tuple[LoopModel, SplitPlan | None]:
    if mode == "flat":
        model = read_model(tiny_model(tiny_spec(tmp_path, T), tmp_path / "m.onnx"))
        return model, plan(model)
    model = lstm("GRU" if mode == "gru" else "LSTM")
    if mode == "whole":
        return model, None
    found = plan(model, stateful=mode == "carry")
    assert found.usable, found.why_not
    chosen: Any = {"gru": "bank"}.get(mode, mode)
    return model, replace(found, mode=chosen)


def new_bench(model: LoopModel, split: SplitPlan | None, weights: str = "fp32") -> Bench:
    prepared = prepare(model, split, weights)
    return Bench(
        lambda ring: NativeEngine(model, prepared, ring, split_figures(split)), model.width
    )


class Whole:
    """The whole model on the newest rows, in ONNX Runtime's Python API."""

    def __init__(self, model: LoopModel) -> None:
        self.session = onnxruntime.InferenceSession(model.content)
        self.window, self.rows = model.window, []

    def __call__(self) -> np.ndarray:
        return self.session.run(None, {"rows": np.stack(self.rows[-self.window :])[None]})[0][0]


@needs_compiler
@pytest.mark.parametrize("mode", ["flat", "pre", "bank", "gru", "whole"])
def test_it_equals_the_whole_model_on_every_window(mode: str, tmp_path: Path) -> None:
    model, split = made(mode, tmp_path)
    bench = new_bench(model, split)
    whole, rng, compared = Whole(model), np.random.default_rng(1), 0
    for seq in range(1, 60):
        if seq in (23, 25, 40):  # the stream starts anew, once before a window was complete
            do_reset(bench.table)
            whole.rows.clear()
        row = rng.normal(size=model.width).astype(np.float32)
        bench.write(seq, row)
        whole.rows.append(row)
        if len(whole.rows) >= T:
            for _ in range(2):  # a step changes nothing that lasts
                assert do_submit(bench.table, seq) == Code.OK
                assert do_poll(bench.table, seq) == Code.OK
                np.testing.assert_allclose(outputs(bench.table), whole(), rtol=1e-6, atol=1e-7)
            compared += 1
        before = outputs(bench.table)
        assert do_advance(bench.table, seq) == Code.OK
        assert outputs(bench.table) == before  # the step that warms the cache goes elsewhere
    assert compared > 40
    assert bench.engine.describe().get("waits", 0) == 0
    bench.engine.close()


@needs_compiler
@pytest.mark.parametrize(
    ("mode", "missed", "waits"),
    [
        # 4: only two rows were advanced before it; 5, 7, 9, 11: the row before was not.
        ("pre", {2, 4, 6, 8, 10}, 5),
        # A bank is built anew from the ring, once for each gap: rows 10, 11 and 21.
        ("bank", {9, 10, 20}, 3),
        ("gru", {2, 15}, 2),
    ],
)
def test_missed_rows_cost_time_on_the_path_never_a_wrong_signal(
    mode: str, missed: set[int], waits: int, tmp_path: Path
) -> None:
    model, split = made(mode, tmp_path)
    bench = new_bench(model, split)
    whole, rng = Whole(model), np.random.default_rng(4)
    for seq in range(1, 12 if mode == "pre" else 30):
        row = rng.normal(size=F).astype(np.float32)
        bench.write(seq, row)
        whole.rows.append(row)
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            np.testing.assert_allclose(outputs(bench.table), whole(), rtol=1e-6, atol=1e-7)
        if seq not in missed:
            do_advance(bench.table, seq)
    assert bench.engine.describe()["waits"] == waits


@needs_compiler
def test_carried_state_is_that_of_all_rows_since_the_start(tmp_path: Path) -> None:
    model, split = made("carry", tmp_path)
    long = 30
    grown = recurrent("LSTM", 2, 6, long, F, seed=3)
    endless = onnxruntime.InferenceSession(grown.SerializeToString())
    bench, rng = new_bench(model, split), np.random.default_rng(2)
    for start in (100, 200):
        do_reset(bench.table)
        rows = rng.normal(size=(long, F)).astype(np.float32)
        for seq, row in enumerate(rows, start):
            bench.write(seq, row)
            if seq >= start + T - 1:
                assert do_submit(bench.table, seq) == Code.OK
            if seq < start + long - 1:
                assert do_advance(bench.table, seq) == Code.OK
        (expected,) = endless.run(None, {"rows": rows[None]})
        np.testing.assert_allclose(outputs(bench.table), expected[0], rtol=1e-6, atol=1e-7)


@needs_compiler
@pytest.mark.parametrize("name", set(ZOO) - {"transformer"})  # its window is open
def test_models_of_every_kind_are_exact(name: str) -> None:
    model = loop_model(ZOO[name]().SerializeToString(), f"{name}.onnx")
    split = plan(model)
    errors = prepare(model, split if split.usable else None).parity.errors
    assert errors.step <= 1e-6
    assert errors.model <= 5e-6  # ONNX Runtime rounds as well


LARGE = {
    "mlp": lambda: mlp(6, 40, 160),
    "lstm": lambda: recurrent("LSTM", 2, 64, 6, 150),
    "gru": lambda: recurrent("GRU", 1, 80, 6, 150),
    "tcn": lambda: tcn(70, 20, 33),
    "transformer": lambda: transformer(2, window=20, features=10, width=32),
}


@needs_compiler
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_weights_of_every_type(name: str, weights: str) -> None:
    """Large enough for tiles, for products that are cut short, for other types."""
    model = loop_model(LARGE[name]().SerializeToString(), f"{name}.onnx")
    prepared = prepare(model, plan(model), weights)
    error = prepared.parity.errors.model
    low, high = {"fp32": (0.0, 1e-6), "bf16": (1e-6, 1e-2), "int8": (1e-6, 3e-2)}[weights]
    assert low < error <= high
    assert f"{'load' if weights == 'fp32' else 'load_' + weights}(" in prepared.kernel.native.source


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its flags are for x86-64")
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_a_processor_without_wide_vectors(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code, in tiles for few registers, without AVX and without fused multiply-adds."""
    flags = (*compiler._FLAGS, "-march=x86-64")
    monkeypatch.setattr(compiler.Compiler, "flags", property(lambda _: flags))
    monkeypatch.setattr(prepared_module, "has_wide_registers", lambda: False)
    model = loop_model(LARGE["lstm"]().SerializeToString(), "lstm.onnx")
    errors = prepare(model, plan(model), weights).parity.errors
    assert errors.step <= {"fp32": 1e-6, "bf16": 5e-3, "int8": 1e-2}[weights]


@needs_compiler
@pytest.mark.parametrize("name", LARGE)
def test_rows_that_differ_little_that_are_huge_that_are_not_numbers(name: str) -> None:
    """Products with the newest row go on from the row before only where that loses nothing."""
    model = loop_model(LARGE[name]().SerializeToString(), f"{name}.onnx")
    split = plan(model)
    prepared = prepare(model, split)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    rows = RowRing(ring.ctypes.data, model.window, model.width)
    engine = NativeEngine(model, prepared, rows)
    table = engine.handle()
    whole, rng = Whole(model), np.random.default_rng(6)
    row = rng.normal(size=model.width).astype(np.float32)
    compared = {True: 0, False: 0}
    for seq in range(1, 6 * model.window):
        row = row.copy()
        some = rng.random(model.width) < rng.choice([0.0, 0.05, 0.6, 1.0])
        row[some] = rng.normal(size=some.sum())
        seen = row.copy()
        if seq == 2 * model.window:
            seen[3] = 3e7
        if seq == 3 * model.window + 5:
            seen[:2] = np.nan, np.inf
        ring[seq % model.window] = ring[seq % model.window + model.window] = seen
        whole.rows.append(seen)
        if seq >= model.window:
            assert do_submit(table, seq) == Code.OK
            got, want = np.array(outputs(table)), whole()
            if name in ("lstm", "gru") and not np.isfinite(whole.rows[-model.window :]).all():
                want = np.full(3, np.nan, np.float32)  # ONNX Runtime makes numbers of them
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
            compared[bool(np.isnan(want).any())] += 1
        do_advance(table, seq)
    assert compared[True] > 0
    assert compared[False] >= 4 * model.window
    engine.close()


def source_of(model: LoopModel, path: Path) -> Source:
    return Source(model, path, model.sha256)


@needs_compiler
def test_orders_are_those_of_onnxruntime(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 300, clear_at=150)
    runs = []
    for backend in ("native", "onnxruntime"):
        strategies = settings(tmp_path), settings(tmp_path, policy=MakerParams())
        with Session(config(tmp_path, data, *strategies, backend=backend)) as session:
            report = session.run()
            assert report.engine.backend == backend
            assert [svg[:4] for svg in report.graphs.values()] == ["<svg"]
            intents = session.intents()
            signal = intents["signal"].copy()
            intents["signal"] = 0
            runs.append((intents.tobytes(), signal))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-5, atol=1e-6)


def with_branches(path: Path, hash_: str, width: int) -> Path:
    """Its answer is chosen by an operator for which there is no rule."""
    assert "If" not in RULES
    shape = ["batch", 3]

    def branch(name: str, value: list[float]) -> onnx.GraphProto:
        constant = helper.make_tensor(f"{name}_c", TensorProto.FLOAT, [1, 3], value)
        node = helper.make_node("Constant", [], [name], value=constant)
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3])]
        )

    nodes = [
        helper.make_node("ReduceSum", ["rows"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["up"]),
        helper.make_node(
            "If",
            ["up"],
            ["probabilities"],
            then_branch=branch("rise", [0.1, 0.2, 0.7]),
            else_branch=branch("fall", [0.7, 0.2, 0.1]),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", T, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, {"tickrt.feature_hash": hash_})
    onnx.save(model, str(path))
    return path


def run_and_say(folder: Path, caplog: pytest.LogCaptureFixture, **changes: Any) -> str:
    """A session on the default backend: why it ran in ONNX Runtime, as log, note and details."""
    data = market_file(folder / "market.npz", 40)
    chosen = settings(folder, **changes.pop("strategy", {}))
    with (
        caplog.at_level(logging.WARNING, "tickrt.native"),
        Session(config(folder, data, chosen, **changes)) as session,
    ):
        report = session.run()
        assert report.signals == 40 - (T - 1)
    assert report.engine.backend == "onnxruntime"
    why_not = str((report.engine.details or {})["why_not_native"])
    assert any(why_not in note for note in report.notes)
    assert why_not in caplog.text
    return why_not


def test_an_operator_without_a_rule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = tiny_spec(tmp_path, T)
    path = with_branches(tmp_path / "if.onnx", spec.hash, spec.width)
    assert "operator If" in run_and_say(tmp_path, caplog, strategy={"model": str(path)})


def test_no_compiler(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install gcc or clang" in run_and_say(tmp_path, caplog)
    assert "install gcc or clang" in compiler.why_not()


def test_more_threads_than_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "threads = 2" in run_and_say(tmp_path, caplog, threads=2)


@needs_compiler
def test_a_compiler_that_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_FLAGS", ("-no-such-flag",))
    assert "refuses the generated code" in run_and_say(tmp_path, caplog)


@needs_compiler
def test_what_is_not_exact_does_not_run(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
) -> None:
    """The compiler's answer is wrong: here, its source is."""
    whole = prepared_module.generate

    def wrong(*arguments: Any) -> Any:
        native = whole(*arguments)
        return replace(native, source=native.source.replace("sums += ", "sums -= "))

    monkeypatch.setattr(prepared_module, "generate", wrong)
    assert "not exact" in run_and_say(tmp_path, caplog)
    (entry,) = (own_cache / "native").iterdir()
    kept = (entry / "facts.json").read_text()
    assert "not exact" in run_and_say(tmp_path, caplog)  # known from what is kept
    assert (entry / "facts.json").read_text() == kept


@needs_compiler
@pytest.mark.parametrize("file", ["program.so", "program.c", "program.bin", "facts.json"])
def test_a_damaged_object_is_made_again(file: str, own_cache: Path) -> None:
    model = lstm()
    split = plan(model)
    first = prepare(model, split)
    folder = first.folder
    assert prepare(model, split).parity == first.parity
    # As a crash may leave it: a new file, since the old one is in use by this very process.
    (folder / file).unlink()
    (folder / file).write_bytes(b"not an object")
    again = prepare(model, split)
    assert again.folder == folder
    assert (folder / file).read_bytes() != b"not an object"
    assert again.parity.errors.model <= 1e-6
    assert [entry.name for entry in (own_cache / "native").iterdir()] == [folder.name]


@needs_compiler
def test_processes_at_once_do_not_clash(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "lstm.onnx"
    path.write_bytes(lstm().content)
    code = (
        "import sys\nfrom tickrt.engines.graph.check import read_model\n"
        "from tickrt.engines.native import prepare\n"
        "print(prepare(read_model(sys.argv[1]), None).folder.name)"
    )
    command = [sys.executable, "-c", code, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert [entry.name for entry in (own_cache / "native").iterdir()] == [*names]


@needs_compiler
def test_the_source_can_be_read(own_cache: Path) -> None:
    model = lstm()
    folder = prepare(model, plan(model)).folder
    text = (folder / "program.c").read_text()
    assert "static void step(const float *rows, float *m, int64_t seq)" in text
    assert model.sha256 in text
    for operation in ("Gemm", "Softmax"):
        assert f"/* {operation} " in text


@needs_compiler
def test_a_bad_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, T)
    model = read_model(with_branches(tmp_path / "if.onnx", spec.hash, spec.width))
    with pytest.raises(TranslateError, match="operator If"):
        prepare(model, None)
    assert backends.probe("native").runs == ""
