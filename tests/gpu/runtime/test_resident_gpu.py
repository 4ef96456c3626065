"""Resident kernels on a real GPU, in a host process, through the loop's functions."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from helpers.engine_bench import await_poll, do_advance, do_poll, do_reset, do_submit
from helpers.programs import MODELS, carried, checked, program, rows_for, split_plan, windows
from helpers.resident_serving import skip_without_gpu
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.resident.compile import build, compiler
from tickrt.engines.translate import TranslateError
from tickrt.errors import Code, IncompatibleError
from tickrt.host.kernels.resident import FORMAT
from tickrt.host.memory import registry
from tickrt.host.process import HostProcess
from tickrt.program import StreamProgram
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide, MailboxEngine
from tickrt.runtime.backends.resident import parcel_of

pytestmark = pytest.mark.gpu
LIMIT = 1e-5  # relative to outputs of at most 1


@pytest.fixture(autouse=True, scope="module")
def gpu() -> None:
    skip_without_gpu()


@pytest.fixture(params=registry.kinds())
def memory(request: pytest.FixtureRequest) -> str:
    kind = str(request.param)
    why = registry._find(kind).probe()
    if why:
        pytest.skip(f"{kind}: {why}")
    return kind


class Rows:
    """An engine and the ring that its rows lie in."""

    def __init__(self, model: LoopModel, made: StreamProgram, memory: str, blocks: int = 0) -> None:
        self.window = model.window
        self.ring = np.zeros((2 * model.window, model.width), np.float32)
        ring = RowRing(self.ring.ctypes.data, model.window, model.width)
        built = build(made, blocks=blocks or None, one_poller=memory == registry.ORDINARY)
        parcel = parcel_of("model", built, made)
        self.engine = MailboxEngine(
            "resident", model, ring, HostProcess(), parcel, memory, direct=True
        )
        self.table = self.engine.handle()
        self.outputs = model.n_outputs
        self.seq = 0

    def feed(self, row: np.ndarray, ask: bool = True) -> np.ndarray | None:
        self.seq += 1
        slot = self.seq % self.window
        self.ring[slot] = self.ring[slot + self.window] = row
        answer = None
        if ask:
            assert do_submit(self.table, self.seq) == Code.OK
            assert await_poll(self.table, self.seq, 2.0) == Code.OK, self.engine.error()
            answer = np.array([load(self.table[6] + 4 * j) for j in range(self.outputs)])
        assert do_advance(self.table, self.seq) == Code.OK
        return answer

    def all(self, rows: np.ndarray) -> np.ndarray:
        """Answers of every complete window."""
        answers = [self.feed(row, i >= self.window - 1) for i, row in enumerate(rows)]
        return np.stack([a for a in answers if a is not None])


def load(address: int) -> float:
    return ctypes.c_float.from_address(int(address)).value


@contextmanager
def running(
    name: str, mode: str, memory: str = registry.AUTO, blocks: int = 0
) -> Iterator[tuple[LoopModel, Rows]]:
    model = checked(MODELS[name]())
    made = program(model, mode)
    if made is None:
        pytest.skip("it cannot run that way")
    try:
        rows = Rows(model, made, registry.choose(memory), blocks)
    except TranslateError as error:
        pytest.skip(str(error))
    try:
        yield model, rows
    finally:
        rows.engine.close()


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("mode", ["pre", "bank"])
def test_it_equals_onnxruntime_on_the_whole_window(name: str, mode: str) -> None:
    with running(name, mode) as (model, rows):
        data = rows_for(model, 3 * model.window + 20)
        np.testing.assert_allclose(rows.all(data), windows(model, data), atol=LIMIT)


@pytest.mark.parametrize("name", ["lstm", "gru-2", "rnn-3"])
def test_carried_states(name: str) -> None:
    with running(name, "carry") as (model, rows):
        data = rows_for(model, 3 * model.window)
        plan = split_plan(model, "carry")
        assert plan is not None
        np.testing.assert_allclose(rows.all(data), carried(plan, data, model.window), atol=LIMIT)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8, 16])
def test_any_number_of_blocks(blocks: int, memory: str) -> None:
    with running("lstm-1", "bank", memory, blocks) as (model, rows):
        data = rows_for(model, 4 * model.window)
        np.testing.assert_allclose(rows.all(data), windows(model, data), atol=LIMIT)


def test_what_is_no_number_goes_away_again(memory: str) -> None:
    with running("lstm", "bank", memory) as (model, rows):
        data = rows_for(model, 4 * model.window)
        bad = model.window + 3
        data[bad, 2] = np.frombuffer(b"\xff\xff\xff\xff", np.float32)[0]
        found = rows.all(data)
        first = np.arange(len(found))  # window i holds rows i … i + T − 1
        touched = (first <= bad) & (bad < first + model.window)
        assert np.isnan(found[touched]).all()
        clean = windows(model, np.nan_to_num(data))
        np.testing.assert_allclose(found[~touched], clean[~touched], atol=LIMIT)


def test_a_reset_forgets_every_row(memory: str) -> None:
    with running("lstm", "bank", memory) as (model, rows):
        data = rows_for(model, 2 * model.window)
        before = rows.all(data)
        assert do_reset(rows.table) == Code.OK
        np.testing.assert_array_equal(rows.all(data), before)


def test_a_row_that_is_asked_about_too_early_is_refused(memory: str) -> None:
    with running("lstm", "bank", memory) as (_, rows):
        rows.seq = 1
        rows.ring[:] = 0
        assert do_submit(rows.table, 1) == Code.OK
        assert await_poll(rows.table, 1) == Code.ENGINE_FAILED


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_host_that_is_killed_is_noticed_and_leaves_the_gpu(how: signal.Signals) -> None:
    with running("lstm", "bank") as (model, rows):
        rows.all(rows_for(model, 2 * model.window))
        os.kill(rows.engine.host.pid, how)
        until = time.monotonic() + 5
        while do_submit(rows.table, rows.seq + 1) != Code.ENGINE_FAILED:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert rows.engine.error()
    with running("lstm", "bank") as (model, rows):  # the GPU serves the next one
        data = rows_for(model, 2 * model.window)
        np.testing.assert_allclose(rows.all(data), windows(model, data), atol=LIMIT)


def test_abort_ends_the_kernel() -> None:
    with running("lstm", "bank") as (model, rows):
        rows.all(rows_for(model, 2 * model.window))
        rows.engine.host.abort()
        until = time.monotonic() + 5
        while do_submit(rows.table, rows.seq + 1) != Code.ENGINE_FAILED:
            assert time.monotonic() < until
            time.sleep(0.001)


def test_one_host_loads_one_engine_after_the_other(memory: str) -> None:
    model = checked(MODELS["lstm"]())
    made = program(model, "bank")
    assert made is not None
    built = build(made, one_poller=memory == registry.ORDINARY)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    with HostProcess() as host:
        host.warm(FORMAT)
        for _ in range(3):
            side = LoopSide(
                RowRing(ring.ctypes.data, model.window, model.width), 3, memory, direct=True
            )
            host.load(parcel_of("m", built, made), side.layout, (side.rows, side.host), side.box)
            data = rows_for(model, model.window + 5)
            expected = np.full((len(data), 3), np.nan, np.float32)
            expected[model.window - 1 :] = windows(model, data)
            host.verify(data, expected, LIMIT)
            host.start()
            table = side.handle()
            for i, row in enumerate(data):
                ring[(i + 1) % model.window] = ring[(i + 1) % model.window + model.window] = row
                if i >= model.window - 1:
                    assert do_submit(table, i + 1) == Code.OK
                    assert await_poll(table, i + 1, 2.0) == Code.OK
                assert do_advance(table, i + 1) == Code.OK
            assert do_poll(table, len(data)) == Code.OK
            host.stop()
            side.close()


def test_a_kernel_for_another_gpu_is_refused() -> None:
    model = checked(MODELS["mlp"]())
    made = program(model, "pre")
    assert made is not None
    built = build(made, "sm_100a") if compiler()[0] else None
    assert built is not None
    ring = np.zeros((2 * model.window, model.width), np.float32)
    with pytest.raises(IncompatibleError, match="sm_100"):
        MailboxEngine(
            "resident",
            model,
            RowRing(ring.ctypes.data, model.window, model.width),
            HostProcess(),
            parcel_of("m", built, made),
            registry.choose(registry.AUTO),
            direct=True,
        )
