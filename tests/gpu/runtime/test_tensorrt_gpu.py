"""TensorRT on a real GPU: built, loaded and run in a host, under the interpreter that has it.

TICKRT_ENGINE_PYTHON names that interpreter; without it ours is asked. Skips only where there is no
GPU, or no TensorRT under either.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.engine_bench import Bench, await_poll, do_advance, do_reset, do_submit, outputs
from helpers.engine_zoo import F, T
from helpers.tensorrt_desk import ROWS, bundle_of, saved
from tickrt import backends
from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.build.build import BuildRequest, build
from tickrt.engines.build.inspect import verify, verify_on_target
from tickrt.engines.bundle.format import open_bundle, write_bundle
from tickrt.errors import BuildError, Code, IncompatibleError
from tickrt.host.process import HostProcess
from tickrt.literals import Precision
from tickrt.models.architectures.zoo import make
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.tensorrt.builder import Library
from tickrt.runtime.model_source import Source, load_source

pytestmark = pytest.mark.gpu
PYTHON = os.environ.get("TICKRT_ENGINE_PYTHON", "")
SPLIT = ("gru", "lstm", "mlp", "tcn")


@pytest.fixture(autouse=True, scope="module")
def library() -> Iterator[Library]:
    found = Library("tensorrt", PYTHON)
    if not found.here.gpus:
        pytest.skip("no GPU on this machine")
    if found.why_not:
        pytest.skip(found.why_not)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("helpers.engine_bench.T", T)


def bundle(name: str, folder: Path, **more: Any) -> Path:
    return bundle_of(name, folder, PYTHON, **more)


def settings(path: Path, **more: Any) -> SessionConfig:
    fields: dict[str, Any] = {"engine_python": PYTHON or None, "allow_unsigned": True, **more}
    return SessionConfig(data=(path,), backend="tensorrt", **fields)


def source_of(path: Path) -> Source:
    return load_source(StrategySettings(model=str(path)), settings(path))


class Stream:
    """An engine, and ONNX Runtime on the window of each of its rows."""

    def __init__(self, path: Path, onnx_path: Path, **more: Any) -> None:
        source, config = source_of(path), settings(path, **more)
        self.bench = Bench(lambda ring: backends.load("tensorrt", source, ring, config), F)
        self.whole = onnxruntime.InferenceSession(str(onnx_path))
        self.rows = np.random.default_rng(5).normal(size=(400, F)).astype(np.float32)
        self.seq = self.first = 0

    @property
    def engine(self) -> MailboxEngine:
        assert isinstance(self.bench.engine, MailboxEngine)
        return self.bench.engine

    def reset(self) -> None:
        do_reset(self.bench.table)
        self.first = self.seq

    def tick(self) -> float:
        """The next row; how far its answer is from the model's."""
        self.seq += 1
        seq, bench = self.seq, self.bench
        bench.write(seq, self.rows[seq - 1])
        error = 0.0
        if seq - self.first >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK, bench.engine.error()
            (want,) = self.whole.run(None, {"rows": self.rows[None, seq - T : seq]})
            error = float(np.abs(np.array(outputs(bench.table)) - want[0]).max())
        assert do_advance(bench.table, seq) == Code.OK
        return error


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_a_bundle_answers_as_the_model(
    tmp_path: Path, name: str, precision: Precision, limit: float
) -> None:
    path = bundle(name, tmp_path, precision=precision)
    stream = Stream(path, tmp_path / f"{name}.onnx")
    assert max(stream.tick() for _ in range(5 * T)) < limit
    stream.reset()
    assert max(stream.tick() for _ in range(3 * T)) < limit
    stats = stream.engine.host.stats()
    assert stats["completion"] in ("stamp", "stream")
    assert (stats["refused"], stats["waits"]) == (0, 0)
    stream.engine.close()


@pytest.mark.parametrize("name", ["mlp", "tcn"])
def test_a_whole_window(tmp_path: Path, name: str) -> None:
    path = bundle(name, tmp_path, split=False)
    stream = Stream(path, tmp_path / f"{name}.onnx")
    assert max(stream.tick() for _ in range(4 * T)) < 1e-5
    stream.engine.close()


def test_a_model_is_built_when_a_session_needs_it(tmp_path: Path) -> None:
    path = saved("lstm", tmp_path)
    stream = Stream(path, path)
    assert stream.engine.describe()["parity_max_abs"] < 1e-5
    assert max(stream.tick() for _ in range(3 * T)) < 1e-5
    stream.engine.close()
    assert len(list((tmp_path / "cache/tickrt/plans").iterdir())) == 2


def test_what_a_bundle_says_of_itself(tmp_path: Path, library: Library) -> None:
    path = bundle("gru", tmp_path)
    with open_bundle(path, allow_unsigned=True) as opened:
        manifest = opened.manifest
        payloads = {entry.name: opened.payload(entry.name) for entry in opened.entries}
    assert manifest.builder.version == library.version
    assert manifest.builder.gpu_arch == (library.here.gpus[0].arch,)
    assert manifest.parity.status == "passed"
    assert all(engine.layers_after for engine in manifest.engines)
    checks = {c.what: c.result for c in verify(path, allow_unsigned=True, python=PYTHON)}
    assert checks["compatible with this machine"] == "ok"
    parity, _, _ = verify_on_target(path, ROWS, "walk", allow_unsigned=True, python=PYTHON)
    assert parity.status == "passed"
    other = manifest.builder.model_copy(update={"version": "10.16.1.11"})
    write_bundle(path, manifest.model_copy(update={"builder": other}), payloads)
    with pytest.raises(IncompatibleError, match=rf"10\.16\.1\.11, here {library.version}"):
        source_of(path)


def test_a_foreign_plan_is_refused_in_the_librarys_words(tmp_path: Path) -> None:
    path = bundle("mlp", tmp_path)
    with open_bundle(path, allow_unsigned=True) as opened:
        manifest = opened.manifest
        payloads = {entry.name: opened.payload(entry.name) for entry in opened.entries}
    payloads["step.plan"] = bytes(64) + payloads["step.plan"][64:]
    write_bundle(path, manifest, payloads)
    with pytest.raises(IncompatibleError, match=r"tensorrt .*: it refuses the plan"):
        Stream(path, tmp_path / "mlp.onnx")


def test_layer_normalisation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "transformer.onnx"
    onnx.save(make("transformer-1"), path)
    built = build(BuildRequest(path, backend="tensorrt", engine_python=PYTHON))
    assert built.manifest.parity.status == "passed"


def test_an_operator_that_nobody_knows_is_named(tmp_path: Path) -> None:
    path = saved("mlp", tmp_path)
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["x" if name == output else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Det", ["x"], [output], name="odd"))
    order = onnx.helper.make_model(model.graph, opset_imports=model.opset_import)
    with pytest.raises(BuildError, match=r"cannot read the model: layer '.*' \(.*\): "):
        _build_part(order)


def _build_part(model: onnx.ModelProto) -> None:
    from tickrt.engines.bundle.toolchain import EngineOrder
    from tickrt.engines.graph.load import tensor_infos
    from tickrt.runtime.backends.tensorrt.builder import PlanBuilder

    builder = PlanBuilder("tensorrt", PYTHON)
    inputs = tensor_infos(model.graph.input)
    builder.build(EngineOrder(model, model.SerializeToString(), inputs, "mlp"), None)


def test_the_host_is_killed_in_mid_stream_and_the_gpu_is_free_again(tmp_path: Path) -> None:
    path = bundle("mlp", tmp_path)
    stream = Stream(path, tmp_path / "mlp.onnx")
    for _ in range(2 * T):
        stream.tick()
    os.kill(stream.engine.host.pid, signal.SIGKILL)
    stream.seq += 1
    stream.bench.write(stream.seq, stream.rows[0])
    do_submit(stream.bench.table, stream.seq)
    assert await_poll(stream.bench.table, stream.seq) == Code.ENGINE_FAILED
    stream.engine.close()
    again = Stream(path, tmp_path / "mlp.onnx")
    assert max(again.tick() for _ in range(2 * T)) < 1e-5
    again.engine.close()


def test_one_load_after_another(tmp_path: Path) -> None:
    path = bundle("gru", tmp_path)
    for _ in range(3):
        stream = Stream(path, tmp_path / "gru.onnx")
        assert max(stream.tick() for _ in range(3 * T)) < 1e-5
        stream.engine.close()


def test_a_spare_host_is_warmed() -> None:
    with HostProcess(PYTHON) as host:
        host.warm("tensorrt")
        assert host.request("look", timeout_s=60.0, format="tensorrt")["gpus"]
