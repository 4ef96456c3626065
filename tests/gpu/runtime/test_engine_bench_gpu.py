"""Floors and PyTorch on a real GPU, in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.engine_zoo import gru
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.observe.nvml import read_gpus
from tickrt.runtime.engine_bench import Stream, side_by_side
from tickrt.runtime.engine_child import ChildRunner
from tickrt.runtime.engine_floors import KINDS
from tickrt.runtime.engine_peers import PEERS
from tickrt.runtime.engine_peers_base import Skipped

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model() -> LoopModel:
    return loop_model(gru().SerializeToString(), "gru")


@pytest.fixture(params=KINDS)
def launches(request: pytest.FixtureRequest) -> Iterator[ChildRunner]:
    try:
        runner = ChildRunner("tickrt.runtime.engine_floors:open_floor", request.param)
    except Skipped as error:
        if "no CUDA driver here" not in str(error):
            raise
        pytest.skip(str(error))
    yield runner
    runner.close()


def test_empty_launches_end(launches: ChildRunner, model: LoopModel) -> None:
    runners = {"it": launches}
    found = side_by_side(runners, Stream(model), seconds=0.0, gap_us=50.0, floors=("it",))["it"]
    assert "failed" not in found
    assert found["on_path_us"]["p50"] > 0
    reading = read_gpus()
    if reading.gpus:
        assert launches.describe()["card"] == reading.gpus[0].name


@pytest.mark.parametrize("how", ["eager", "cuda_graph", "compile"])
def test_torch_answers_on_the_gpu(how: str, model: LoopModel) -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA")
    peer = PEERS[f"torch_{how}"](model)
    try:
        facts = side_by_side({"it": peer}, Stream(model), seconds=0.0, gap_us=0.0)["it"]
        assert peer.describe()["device"] == "cuda"
    finally:
        peer.close()
    assert facts["parity"]["not_finite"] == 0
    assert facts["parity"]["max_error"] < 1e-2  # cuDNN may use TF32
