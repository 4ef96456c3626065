"""Engines side by side: what is counted, what is compared, and what a broken engine looks like."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.engine_zoo import gru, mlp
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.resident.echo import echo
from tickrt.errors import Code, ConfigError
from tickrt.program.reference import Reference
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.backends.onnxruntime.whole import OrtEngine
from tickrt.runtime.engine_bench import TURN, UNCOUNTED, Feed, Stream, side_by_side
from tickrt.runtime.engine_lineup import DEFAULT_NAMES, FLOORS, check_names, compare
from tickrt.runtime.engine_peers import OrtPeer, Skipped
from tickrt.runtime.model_source import Source

SUBMIT = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(scope="module")
def model() -> LoopModel:
    return loop_model(gru().SerializeToString(), "gru")


@pytest.fixture(scope="module")
def stream(model: LoopModel) -> Stream:
    return Stream(model)


class Spoilt(OrtEngine):
    """ONNX Runtime, but for what `spoil` does to it after each `submit`."""

    def __init__(self, model: LoopModel, ring: RowRing, spoil: Callable[[Any, int], int]) -> None:
        super().__init__(model, ring)
        right = SUBMIT(int(super().handle()[0]))

        def submit(ctx: int, seq: int, n: int) -> int:
            code = right(ctx, seq, n)
            return spoil(self._output, seq) if code == Code.OK else int(code)

        self._submit = SUBMIT(submit)

    def handle(self) -> Any:
        table = super().handle()
        table[0] = ctypes.cast(self._submit, ctypes.c_void_p).value
        return table

    def error(self) -> str:
        return "spoilt on purpose"


def off_by(amount: float) -> Callable[[Any, int], int]:
    def spoil(output: Any, _seq: int) -> int:
        output += np.float32(amount)
        return Code.OK

    return spoil


def no_number(output: Any, seq: int) -> int:
    if seq % 2 == 0:
        output[0, 1] = np.nan
    return Code.OK


def infinite(output: Any, _seq: int) -> int:
    output[:] = np.inf
    return Code.OK


def failing(_output: Any, seq: int) -> int:
    return Code.ENGINE_FAILED if seq == 100 else Code.OK


@contextmanager
def runners(model: LoopModel, **spoils: Callable[[Any, int], int] | None) -> Iterator[Any]:
    def opened(spoil: Callable[[Any, int], int] | None) -> Feed:
        def make(ring: RowRing) -> Any:
            return OrtEngine(model, ring) if spoil is None else Spoilt(model, ring, spoil)

        return Feed(model.window, model.width, make)

    found = {name: opened(spoil) for name, spoil in spoils.items()}
    try:
        yield found
    finally:
        for feed in found.values():
            feed.close()


def test_every_answer_is_compared(model: LoopModel, stream: Stream) -> None:
    with runners(model, right=None, wrong=off_by(0.25), nan=no_number, inf=infinite) as found:
        facts = side_by_side(found, stream, seconds=0.0, gap_us=0.0)
    answers = facts["right"]["answers"]
    assert facts["right"]["parity"] == {
        "max_error": pytest.approx(0.0, abs=1e-6),
        "not_finite": 0,
    }
    assert facts["wrong"]["parity"]["max_error"] == pytest.approx(0.25, abs=1e-5)
    assert facts["nan"]["parity"]["max_error"] == pytest.approx(0.0, abs=1e-6)
    assert facts["nan"]["parity"]["not_finite"] == (answers + 1) // 2  # the first one too
    assert facts["inf"]["parity"] == {"max_error": None, "not_finite": answers}


def test_one_wrong_answer_in_a_thousand_is_seen(model: LoopModel, stream: Stream) -> None:
    def once(output: Any, seq: int) -> int:
        output[0, 0] += np.float32(0.5 if seq == model.window + 3 else 0.0)
        return Code.OK

    with runners(model, once=once) as found:
        facts = side_by_side(found, stream, seconds=0.0, gap_us=0.0)
    assert facts["once"]["parity"]["max_error"] == pytest.approx(0.5, abs=1e-5)


def test_counts_add_up(model: LoopModel, stream: Stream) -> None:
    shares: list[float] = []
    with runners(model, one=None, other=None) as found:
        facts = side_by_side(
            found,
            stream,
            seconds=0.05,
            gap_us=5.0,
            report=lambda done, of: shares.append(done / of),
        )
    turns = facts["one"]["counted"] // (TURN - UNCOUNTED)
    assert turns == len(shares)
    assert shares == sorted(shares)
    for entry in facts.values():
        assert entry["counted"] == turns * (TURN - UNCOUNTED)
        assert entry["answers"] == 2 * model.window + TURN - (model.window - 1) + 2 * turns * TURN
        for times in (entry["on_path_us"], entry["advance_us"]):
            assert 0 <= times["p50"] <= times["p99"] <= times["p999"] <= times["max"]
        assert entry["rows_per_second"] > 0


def test_an_engine_that_fails_leaves_the_others_alone(model: LoopModel, stream: Stream) -> None:
    with runners(model, failing=failing, right=None) as found:
        facts = side_by_side(found, stream, seconds=0.02, gap_us=0.0)
    assert facts["failing"]["failed"] == "row 100: ENGINE_FAILED: spoilt on purpose"
    assert "failed" not in facts["right"]
    assert facts["right"]["counted"] >= TURN - UNCOUNTED


def test_floors_are_not_compared(model: LoopModel, stream: Stream) -> None:
    floor = Feed(model.window, model.width, lambda ring: NullEngine())
    facts = side_by_side({"null": floor}, stream, seconds=0.0, gap_us=0.0, floors=("null",))
    assert "parity" not in facts["null"]
    assert facts["null"]["counted"] == TURN - UNCOUNTED


def test_rows_before_the_first_window_have_no_answer(model: LoopModel, stream: Stream) -> None:
    with runners(model, right=None) as found:
        fed = found["right"].run(stream.rows[: model.window - 2], 0.0)
        assert np.isnan(fed.outputs).all()
        assert not fed.answers.any()
        fed = found["right"].run(stream.rows[model.window - 2 : model.window], 0.0)
    assert np.isnan(fed.outputs[0]).all()
    assert fed.outputs[1] == pytest.approx(stream.expected[model.window - 1], abs=1e-6)


def test_the_echo_sends_the_row_back() -> None:
    program = Reference(echo(5, window=3))
    rows = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    for seq, row in enumerate(rows, 1):
        assert program.submit(seq, row) == pytest.approx(row[:3])
        program.advance(seq, row)


def test_a_peer_answers_as_the_model_does(model: LoopModel, stream: Stream) -> None:
    peer = OrtPeer(model, "CPUExecutionProvider")
    facts = side_by_side({"peer": peer}, stream, seconds=0.0, gap_us=0.0)
    assert peer.describe()["called_from"] == "Python"
    peer.close()
    assert facts["peer"]["parity"]["not_finite"] == 0
    assert facts["peer"]["parity"]["max_error"] < 1e-6


def test_a_peer_that_is_not_there_says_so(model: LoopModel) -> None:
    with pytest.raises(Skipped, match="has no NoSuchProvider"):
        OrtPeer(model, "NoSuchProvider")


def test_what_stands_side_by_side() -> None:
    model = loop_model(mlp().SerializeToString(), "mlp")
    source = Source(model, Path("mlp"), model.sha256)
    names = check_names(["null", "onnxruntime", "native", "native", "tensorrt"])
    assert names == ("onnxruntime", "native", "tensorrt")
    found = compare(source, names, seconds=0.0, gap_us=0.0, report=lambda _done, _total: None)
    expected = [*FLOORS, "onnxruntime whole", "onnxruntime split", "native", "tensorrt"]
    assert [entry["engine"] for entry in found] == expected
    assert [entry["floor"] for entry in found] == 4 * [True] + 4 * [False]
    for entry in found:
        assert ("skipped" in entry) != ("where" in entry)
        if "skipped" not in entry and not entry["floor"]:
            assert entry["parity"]["max_error"] < 1e-5


def test_names_that_there_are() -> None:
    assert set(check_names(DEFAULT_NAMES)) == set(DEFAULT_NAMES)
    with pytest.raises(ConfigError, match=r"unknown backend 'nativ': did you mean native\?"):
        check_names(["nativ"])
