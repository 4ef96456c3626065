"""A host of many streams, as a process: kernels of one stream each, refusals, its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.batching import Rings
from helpers.engine_bench import await_poll, do_advance, do_submit, outputs
from helpers.sessions import tiny_model, tiny_spec
from helpers.window_kernel import KERNELS, expected, parcel, weight
from tickrt.engines.graph.check import read_model
from tickrt.errors import Code, EngineError, HostError, IncompatibleError
from tickrt.host.kernels.onnx import load
from tickrt.host.process import HostProcess
from tickrt.host.serve_batch import rounds
from tickrt.runtime.backends.mailbox.batch import group

T, MEMBERS = 4, 3


class Group:
    """Three streams of a window kernel in one host."""

    def __init__(self, folder: Path) -> None:
        self.model = read_model(tiny_model(tiny_spec(folder, T), folder / "m.onnx"))
        self.width = self.model.width
        self.rings = Rings(MEMBERS, T, self.width)
        self.engines: list[Any] = []

    def load(self, format_: str = "window", **facts: Any) -> None:
        made = parcel(T, self.width, format_, **facts)
        host = HostProcess(kernels=KERNELS)
        self.engines = group("window", self.model, self.rings.all(), host, made, MEMBERS)
        self.tables = [engine.handle() for engine in self.engines]

    def tick(self, member: int, seq: int, answer: bool = True) -> np.ndarray:
        row = np.random.default_rng(100 * member + seq).normal(size=self.width).astype(np.float32)
        self.rings.write(member, seq, row)
        do = do_submit if answer else do_advance
        assert do(self.tables[member], seq) == Code.OK
        return row

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path)
    yield made
    made.close()


def test_kernels_of_one_stream_each_keep_their_own_windows(streams: Group) -> None:
    streams.load()
    rows = [[streams.tick(m, seq, seq == T) for seq in range(1, T + 1)] for m in range(MEMBERS)]
    for member in range(MEMBERS):
        assert await_poll(streams.tables[member], T) == Code.OK
        want = expected(np.array(rows[member]), weight(T, streams.width))
        np.testing.assert_allclose(outputs(streams.tables[member]), want, atol=1e-6)
    assert streams.engines[0].host.stats()["answers"] == MEMBERS


def test_a_row_that_is_refused_says_why_and_touches_no_other(streams: Group) -> None:
    streams.load(needs=1)
    streams.tick(0, 1, answer=False)
    for member, seq in ((1, 1), (0, 2)):
        streams.tick(member, seq)
    assert await_poll(streams.tables[1], 1) == Code.ENGINE_FAILED
    assert await_poll(streams.tables[0], 2) == Code.OK
    assert streams.engines[1].error() == "row 1: only 0 rows came before it"
    assert [streams.engines[m].error() for m in (0, 2)] == ["", ""]


def test_a_kernel_that_breaks_fails_every_stream_with_its_words(streams: Group) -> None:
    streams.load(broken_at=7)
    streams.tick(1, 7)
    assert await_poll(streams.tables[1], 7) == Code.ENGINE_FAILED
    for member in range(MEMBERS):
        assert do_submit(streams.tables[member], 8) == Code.ENGINE_FAILED
        assert streams.engines[member].error() == "ValueError: broken at 7"


def test_the_host_ends_with_the_last_of_its_engines(streams: Group) -> None:
    streams.load()
    host = streams.engines[0].host
    for engine in streams.engines[:-1]:
        engine.close()
        engine.close()
    streams.tick(2, 1)
    assert await_poll(streams.tables[2], 1) == Code.OK
    assert host.why == ""
    streams.engines[-1].close()
    assert host.why == "was closed"


def test_a_kernel_that_serves_one_mailbox_is_not_shared(streams: Group) -> None:
    with pytest.raises(IncompatibleError, match=r"mailbox of one stream: max_batch = 1"):
        streams.load("self")


def test_parity_rows_are_for_one_stream(streams: Group) -> None:
    streams.load()
    host = streams.engines[0].host
    with pytest.raises(HostError, match="parity rows are for an engine of one stream"):
        host.verify(np.zeros((1, streams.width), np.float32), np.zeros((1, 3), np.float32), 1.0)


def test_a_window_kernel_serves_one_stream_as_well(streams: Group) -> None:
    facts = {"engines": {"full": "m"}, "window": T, "width": streams.width}
    kernel = load({"m": memoryview(streams.model.content)}, facts)
    out = np.zeros((1, 3), np.float32)
    row = np.ones((1, streams.width), np.float32)
    with pytest.raises(EngineError, match="row 1: the engine has the 0 rows up to 0, it needs 3"):
        kernel.answer(1, row, out)
    for seq in range(1, T):
        kernel.advance(seq, row)
    kernel.answer(T, row, out)
    assert out.sum() == pytest.approx(1.0)
    kernel.reset()
    with pytest.raises(EngineError, match="has the 0 rows"):
        kernel.answer(T + 1, row, out)


def test_a_model_that_cannot_be_loaded_says_so() -> None:
    facts = {"engines": {"full": "m"}, "window": T, "width": 1}
    with pytest.raises(EngineError, match="ONNX Runtime cannot load it"):
        load({"m": memoryview(b"no model")}, facts)


def test_rounds_hold_each_member_once_in_order() -> None:
    def cut(*members: int) -> list[list[int]]:
        return [part.tolist() for part in rounds(np.array(members, np.int64))]

    assert cut(4) == [[0]]
    assert cut(1, 0, 2) == [[0, 1, 2]]
    assert cut(1, 0, 1, 1, 0, 2) == [[0, 1], [2], [3, 4, 5]]
