"""ONNX Runtime in a host, its tensors bound once: here with the CPU provider in CUDA's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.engine_bench import Bench, await_poll, do_advance, do_reset, do_submit, outputs
from helpers.engine_zoo import ZOO, F, T
from tickrt import backends
from tickrt.config import SessionConfig
from tickrt.engines.graph.check import LoopModel, read_model
from tickrt.engines.split.plan import SplitPlan, plan
from tickrt.errors import Code, ConfigError, HostError
from tickrt.host.kernels.onnxruntime_cuda import CUDA, FORMAT
from tickrt.host.kernels.stream import StreamFacts
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends import onnxruntime_cuda
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.mailbox.stream import graphs_of, stream_facts, stream_parcel
from tickrt.runtime.model_source import Source

CPU = "CPUExecutionProvider"


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's ring holds as many rows as the models' windows."""
    monkeypatch.setattr("helpers.engine_bench.T", T)


def saved(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(ZOO[name](), path)
    return path


def parcel_of(
    model: LoopModel, split: SplitPlan | None, provider: str
) -> tuple[StreamFacts, Parcel]:
    facts = stream_facts(model, split)
    source = Source(model, Path(model.name), "")
    parcel = stream_parcel(source, split, facts, FORMAT, graphs_of(model, split, facts))
    return facts, replace(parcel, facts={**parcel.facts, "provider": provider})


@pytest.mark.parametrize(
    ("name", "mode"),
    [("mlp", "whole"), ("tcn", "pre"), ("gru", "bank"), ("lstm", "bank"), ("lstm", "whole")],
)
def test_it_answers_as_the_model_does(name: str, mode: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path)
    model = read_model(path)
    facts, parcel = parcel_of(model, None if mode == "whole" else plan(model), CPU)
    assert facts.mode == mode
    whole = onnxruntime.InferenceSession(str(path))
    bench = Bench(
        lambda ring: MailboxEngine("onnxruntime-cuda", model, ring, HostProcess(), parcel), F
    )
    rows = np.random.default_rng(5).normal(size=(5 * T, F)).astype(np.float32)
    first = 0
    for seq in range(1, len(rows) + 1):
        bench.write(seq, rows[seq - 1])
        if seq - first >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK, bench.engine.error()
            (want,) = whole.run(None, {"rows": rows[None, seq - T : seq]})
            np.testing.assert_allclose(outputs(bench.table), want[0], atol=1e-5)
        assert do_advance(bench.table, seq) == Code.OK
        if seq == 2 * T:
            do_reset(bench.table)
            first = seq
    stats = bench.engine.host.stats()  # type: ignore[attr-defined]
    assert (stats["provider"], stats["waits"], stats["refused"]) == (CPU, 0, 0)
    bench.engine.close()


def test_carried_states_go_on(tmp_path: Path) -> None:
    model = read_model(saved("lstm", tmp_path))
    split = plan(model, stateful=True)
    facts, parcel = parcel_of(model, split, CPU)
    assert facts.mode == "carry"
    step, pre = (onnxruntime.InferenceSession(graph) for graph in (split.step, split.pre))
    advance = onnxruntime.InferenceSession(split.advance)
    names = [name for name, _ in split.states]
    bench = Bench(lambda ring: MailboxEngine("x", model, ring, HostProcess(), parcel), F)
    rows = np.random.default_rng(6).normal(size=(3 * T, F)).astype(np.float32)
    states: dict[str, np.ndarray] = {}
    for seq in range(1, len(rows) + 1):
        row = rows[None, seq - 1 : seq]
        bench.write(seq, rows[seq - 1])
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK, bench.engine.error()
            (want,) = step.run([model.output], {split.newest: row, **states})
            np.testing.assert_allclose(outputs(bench.table), want[0], atol=1e-5)
        assert do_advance(bench.table, seq) == Code.OK
        if seq == T - 1:
            found = pre.run(names, {split.known: rows[None, : T - 1]})
            states = dict(zip(names, found, strict=True))
        elif seq >= T:
            found = advance.run([f"{n}_next" for n in names], {split.newest: row, **states})
            states = dict(zip(names, found, strict=True))
    bench.engine.close()


def test_a_row_whose_window_is_not_complete_is_refused_alone(tmp_path: Path) -> None:
    model = read_model(saved("gru", tmp_path))
    _, parcel = parcel_of(model, plan(model), CPU)
    bench = Bench(lambda ring: MailboxEngine("x", model, ring, HostProcess(), parcel), F)
    for seq in range(1, 2 * T):
        bench.write(seq, np.zeros(F))
        if seq in (1, T - 1, T, T + 1):
            assert do_submit(bench.table, seq) == Code.OK
            code = await_poll(bench.table, seq)
            assert code == (Code.OK if seq >= T else Code.ENGINE_FAILED)
        assert do_advance(bench.table, seq) == Code.OK
    assert "the window is not complete" in bench.engine.error()
    bench.engine.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": CUDA}, "pip install onnxruntime-gpu"),
        ({"provider": "TpuExecutionProvider"}, "expected CUDAExecutionProvider or CPU"),
        ({"stream": {}}, "facts of the engine are damaged"),
    ],
)
def test_what_it_cannot_load(change: dict[str, object], words: str, tmp_path: Path) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    model = read_model(saved("mlp", tmp_path))
    _, parcel = parcel_of(model, plan(model), CPU)
    parcel = replace(parcel, facts={**parcel.facts, **change})
    with pytest.raises(HostError, match=words):
        Bench(lambda ring: MailboxEngine("x", model, ring, HostProcess(), parcel), F)


def test_the_backend_says_what_is_missing(tmp_path: Path) -> None:
    path = saved("mlp", tmp_path)
    probe = onnxruntime_cuda.probe()
    if probe.runs:
        assert "onnxruntime-gpu" in probe.runs
        with pytest.raises(ConfigError, match="'onnxruntime-cuda' cannot run a model here"):
            backends.load("onnxruntime-cuda", None, None, None)
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    source = Source(read_model(path), path, "")
    config = SessionConfig(data=(path,), backend="onnxruntime-cuda")
    with pytest.raises(HostError, match="pip install onnxruntime-gpu"):
        Bench(lambda ring: onnxruntime_cuda.load(source, ring, config), F)
