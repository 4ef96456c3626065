"""One contract for every backend: handle, stamps, errors (DESIGN section 4, engine handle)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from helpers import watching_kernel
from helpers.batching import OneOfMany, Rings, among
from helpers.engine_bench import (
    Bench,
    T,
    await_poll,
    do_advance,
    do_poll,
    do_reset,
    do_submit,
    outputs,
    poison,
    stamp,
)
from helpers.sessions import tiny_model, tiny_spec
from helpers.window_kernel import KERNELS, parcel
from tickrt.compile.codes import ENGINE_COLUMNS, ENGINE_ROWS
from tickrt.engines.graph.check import LoopModel, read_model
from tickrt.engines.native import prepare, why_not
from tickrt.engines.split.plan import plan
from tickrt.engines.translate import stream_program
from tickrt.errors import Code, ConfigError, ModelError
from tickrt.host.kernels import onnx_windows, reference
from tickrt.host.process import HostProcess
from tickrt.program import StreamProgram, to_bytes
from tickrt.runtime.backends import kernels as backend_kernels
from tickrt.runtime.backends.handle import new_engines
from tickrt.runtime.backends.mailbox.batch import group
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.native.engine import NativeEngine
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.backends.onnxruntime.whole import OrtEngine

ROWS = 11


BACKENDS = ["null", "onnxruntime", "native", "native split", "host", "reference", "watching"]
BACKENDS += ["shared windows", "shared programs"]


def program(model: LoopModel) -> StreamProgram:
    return stream_program(model, None)


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    spec = tiny_spec(tmp_path, T)
    model = read_model(tiny_model(spec, tmp_path / "m.onnx"))
    others = Rings(2, T, spec.width)
    windows = onnx_windows.parcel("m.onnx", model.content, T, spec.width)
    programs = reference.parcel("m.onnx", to_bytes(program(model)))
    made = {
        "null": lambda ring: NullEngine(),
        "onnxruntime": lambda ring: OrtEngine(model, ring),
        "native": lambda ring: NativeEngine(model, prepare(model, None), ring),
        "native split": lambda ring: NativeEngine(model, prepare(model, plan(model)), ring),
        "host": lambda ring: MailboxEngine(
            "window", model, ring, HostProcess(kernels=KERNELS), parcel(T, spec.width)
        ),
        "reference": lambda ring: MailboxEngine(
            "reference",
            model,
            ring,
            HostProcess(),
            programs,
        ),
        "shared windows": lambda ring: OneOfMany(
            group("onnxruntime", model, among(ring, others), HostProcess(), windows, 4)
        ),
        "shared programs": lambda ring: OneOfMany(
            group("reference", model, among(ring, others), HostProcess(), programs, 4)
        ),
        "watching": lambda ring: MailboxEngine(
            "watching",
            model,
            ring,
            HostProcess(kernels=watching_kernel.KERNELS),
            watching_kernel.parcel(program(model)),
            direct=True,
        ),
    }
    if request.param.startswith("native") and (why := why_not()):
        pytest.skip(why)
    bench = Bench(made[request.param], spec.width)
    yield bench
    bench.engine.close()


def test_handle_has_every_column(bench: Bench) -> None:
    assert bench.table.dtype == np.int64
    assert len(bench.table) == ENGINE_COLUMNS
    assert all(bench.table[i] != 0 for i in (0, 1, 2, 3, 4, 6, 7))
    engines = new_engines([bench.engine], [0], [0], 1000)
    assert engines.table.shape == (ENGINE_ROWS, ENGINE_COLUMNS)
    assert not engines.table[1:].any()  # the spare row


def test_result_is_stamped_with_its_row(bench: Bench) -> None:
    rng = np.random.default_rng(3)
    for seq in range(1, ROWS):
        bench.write(seq, rng.normal(size=bench.rows.shape[1]))
        if seq >= T:  # the window is complete, as the loop sees to it
            poison(bench.table)
            assert do_poll(bench.table, seq) == Code.PENDING
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK
            assert stamp(bench.table) == seq
            assert np.isfinite(outputs(bench.table)).all()
        assert do_advance(bench.table, seq) == Code.OK


def test_older_result_is_not_taken_for_newer_one(bench: Bench) -> None:
    bench.write(5, np.zeros(bench.rows.shape[1]))
    do_submit(bench.table, 5)
    assert do_poll(bench.table, 6) == Code.PENDING
    assert do_poll(bench.table, 4) == Code.ENGINE_STALE


def test_reset_is_accepted_at_any_time(bench: Bench) -> None:
    assert do_reset(bench.table) == Code.OK
    assert do_submit(bench.table, 1) == Code.OK


def test_describe_names_the_backend(bench: Bench) -> None:
    assert bench.engine.describe()["backend"] == bench.engine.backend
    assert bench.engine.error() == ""


def test_onnxruntime_equals_its_python_result(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, T)
    path = tiny_model(spec, tmp_path / "m.onnx")
    bench = Bench(lambda ring: OrtEngine(read_model(path), ring), spec.width)
    session = onnxruntime.InferenceSession(str(path))
    rng = np.random.default_rng(5)
    history = np.zeros((T, spec.width), np.float32)
    for seq in range(1, 40):
        row = rng.normal(size=spec.width).astype(np.float32)
        history = np.vstack([history[1:], row])
        bench.write(seq, row)
        do_submit(bench.table, seq)
        if seq >= T:
            (expected,) = session.run(None, {"rows": history[None]})
            np.testing.assert_array_equal(np.array(outputs(bench.table), np.float32), expected[0])
    bench.engine.close()


def test_onnxruntime_failure_is_kept_until_read(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, T)
    path = tiny_model(spec, tmp_path / "m.onnx")
    bench = Bench(lambda ring: OrtEngine(read_model(path), ring), spec.width)
    assert isinstance(bench.engine, OrtEngine)
    ctx = bench.engine._ctx
    good = int(ctx[backend_kernels.INPUT_NAMES // 8])
    wrong = np.array([bench.engine._pointers[1]], np.int64)  # the output's name for the input
    ctx[backend_kernels.INPUT_NAMES // 8] = wrong.ctypes.data
    assert do_submit(bench.table, 1) == Code.ENGINE_FAILED
    ctx[backend_kernels.INPUT_NAMES // 8] = good
    assert do_submit(bench.table, 2) == Code.ENGINE_FAILED
    assert "probabilities" in bench.engine.error()
    assert do_submit(bench.table, 3) == Code.OK
    bench.engine.close()


def test_garbage_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"bad\.onnx: not a readable ONNX model"):
        read_model(path)


def test_engine_of_other_outputs_is_refused() -> None:
    class Odd(NullEngine):
        def handle(self) -> np.ndarray:
            table = super().handle()
            table[8] = 2
            return table

    with pytest.raises(ConfigError, match="expected 3 outputs"):
        new_engines([Odd()], [0], [0], 1)
