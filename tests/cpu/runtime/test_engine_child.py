"""Peers and floors in a process of their own: what they answer, and how their end is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import engine_zoo
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.graph.ort import OrtGraph
from tickrt.errors import EngineError, ModelError
from tickrt.models import find_model
from tickrt.models.architectures.zoo import ZOO, make, recurrent
from tickrt.runtime.engine_bench import TURN, Runner, Stream, side_by_side
from tickrt.runtime.engine_child import ChildRunner
from tickrt.runtime.engine_floors import KINDS
from tickrt.runtime.engine_peers import PEERS
from tickrt.runtime.engine_peers_base import Skipped

HOST = Path(__file__).parents[1] / "host"


def opened(model: LoopModel, how: str) -> Runner:
    pytest.importorskip("torch")
    return PEERS[f"torch_{how}"](model)


@pytest.fixture(scope="module")
def model() -> LoopModel:
    return loop_model(engine_zoo.gru().SerializeToString(), "gru")


@pytest.fixture(scope="module")
def stream(model: LoopModel) -> Stream:
    return Stream(model)


def test_torch_answers_as_the_model_does(model: LoopModel, stream: Stream) -> None:
    peer = opened(model, "eager")
    try:
        facts = side_by_side({"torch": peer}, stream, seconds=0.0, gap_us=0.0)["torch"]
        about = peer.describe()
    finally:
        peer.close()
    assert facts["parity"]["max_error"] < 1e-5
    assert facts["parity"]["not_finite"] == 0
    assert facts["answers"] == 2 * model.window + 3 * TURN - (model.window - 1)
    assert facts["on_path_us"]["p50"] > 0
    assert (about["how"], about["called_from"]) == ("eager", "Python")
    assert about["device"] in ("cpu", "cuda")


@pytest.mark.parametrize(
    "name", [*sorted(set(ZOO) - {"lstm-l", "lstm-m"}), "light_lstm", "seed_lstm", "rnn"]
)
def test_a_module_of_every_reference_model(name: str) -> None:
    torch = pytest.importorskip("torch")
    from tickrt.runtime.torch_module import torch_module

    if name == "rnn":
        content = recurrent("RNN", 1, 8, 5, 6).SerializeToString()
    else:
        content = (
            make(name).SerializeToString() if name in ZOO else find_model(name).onnx.read_bytes()
        )
    found = loop_model(content, name)
    window = np.random.default_rng(0).standard_normal((1, found.window, found.width), np.float32)
    with torch.inference_mode():
        answer = torch_module(content)(torch.from_numpy(window)).numpy()
    expected = OrtGraph(content).run({found.input: window})[found.output]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def changed(change: Callable[[onnx.NodeProto], None], kind: str) -> bytes:
    """The small GRU, after `change` to its first node of that kind."""
    made = engine_zoo.gru()
    change(next(node for node in made.graph.node if node.op_type == kind))
    return made.SerializeToString()


def test_what_torch_cannot_say_is_refused_by_name() -> None:
    pytest.importorskip("torch")
    from tickrt.runtime.torch_module import torch_module

    def other_gate(node: onnx.NodeProto) -> None:
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("hidden_size", 8))

    def unknown(node: onnx.NodeProto) -> None:
        node.op_type = "Hardmax"

    with pytest.raises(ModelError, match=r"GRU .*reset gate after the product"):
        torch_module(changed(other_gate, "GRU"))
    with pytest.raises(ModelError, match=r"Hardmax .*no rule for this operator"):
        torch_module(changed(unknown, "Softmax"))


def test_a_model_that_cannot_be_written_is_skipped() -> None:
    def unknown(node: onnx.NodeProto) -> None:
        node.op_type = "LogSoftmax"

    content = changed(unknown, "Softmax")
    with pytest.raises(Skipped, match=r"LogSoftmax .*no rule"):
        opened(loop_model(content, "other"), "eager")


def test_a_graph_needs_a_gpu(model: LoopModel) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        peer = opened(model, "cuda_graph")
        peer.close()
    else:
        with pytest.raises(Skipped, match="needs a GPU"):
            opened(model, "cuda_graph")


def test_a_process_that_ends_is_an_error(model: LoopModel, stream: Stream) -> None:
    peer = opened(model, "eager")
    assert isinstance(peer, ChildRunner)
    try:
        os.kill(peer._child.pid, signal.SIGKILL)
        peer._child.wait()
        with pytest.raises(EngineError, match="its process ended: it said nothing"):
            peer.run(stream.rows, 0.0)
    finally:
        peer.close()
    with pytest.raises(EngineError, match="no_such_function"):
        ChildRunner("tickrt.runtime.engine_floors:no_such_function")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver's stand-in; it has what `engine_floors` calls."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    sources = [HOST / "cuda.c", Path(__file__).with_name("launches.c")]
    command = [compiler, "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", *sources]
    subprocess.run(command, check=True)
    return folder


def floor(kind: str) -> ChildRunner:
    return ChildRunner("tickrt.runtime.engine_floors:open_floor", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_launches(
    kind: str, driver: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    runner = floor(kind)
    try:
        found = side_by_side({"it": runner}, stream, seconds=0.0, gap_us=1.0, floors=("it",))["it"]
        assert found["on_path_us"]["p50"] > 0
        assert "parity" not in found
        assert runner.describe()["card"] == "NVIDIA stub"
    finally:
        runner.close()


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuModuleLoadData", "cuInit"])
def test_a_gpu_that_refuses_is_skipped(
    call: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("STUB_FAIL", call)
    with pytest.raises(Skipped, match=f"{call}: CUDA_ERROR_OUT_OF_MEMORY"):
        floor("graph")


def test_a_launch_that_fails_says_which(
    driver: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("STUB_FAIL", "cuGraphLaunch")
    runner = floor("graph")
    try:
        with pytest.raises(EngineError, match=r"launch \d+: cuGraphLaunch: CUDA_ERROR_OUT_OF"):
            runner.run(stream.rows, 0.0)
    finally:
        runner.close()


def test_a_launch_that_never_ends_is_given_up(
    monkeypatch: pytest.MonkeyPatch, driver: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("STUB_BUSY", "1")
    runner = floor("launch")
    try:
        with pytest.raises(EngineError, match="launch 1: cuLaunchKernelEx"):
            runner.run(np.zeros((1, 1), np.float32), 0.0)
    finally:
        runner.close()
