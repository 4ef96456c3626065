"""What can go wrong on a GPU: each has its error, nothing hangs, and the GPU is free afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from helpers.engine_bench import await_poll, do_advance, do_submit, outputs
from helpers.processes import dead, until
from helpers.programs import MODELS, checked, rows_for, windows
from helpers.resident_serving import Serving, kernel_of, skip_without_gpu
from tickrt.config import SessionConfig
from tickrt.engines.graph.check import read_model
from tickrt.errors import Code, HostError
from tickrt.host import mps
from tickrt.host.kernels.resident import FORMAT
from tickrt.host.memory import registry
from tickrt.host.process import HostProcess
from tickrt.models import find_model
from tickrt.observe.nvml import read_gpus
from tickrt.runtime.backends import resident
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide, MailboxEngine
from tickrt.runtime.model_source import Source

pytestmark = pytest.mark.gpu
LIMIT = 1e-5
FILL = """
from tickrt.host.cuda import CudaError, open_device
device, size = open_device(), 1 << 30
while size >= 1 << 12:
    try:
        device.allocate(size)
    except CudaError:
        size //= 2
print("full", flush=True)
input()
"""


@pytest.fixture(autouse=True, scope="module")
def gpu() -> None:
    skip_without_gpu()


def used_mib() -> int:
    """Memory of the first GPU that is in use, by anybody."""
    reading = read_gpus()
    if not reading.gpus or reading.gpus[0].memory_used_mib is None:
        pytest.skip(f"the driver does not say how much memory is used: {reading.problem}")
    return int(reading.gpus[0].memory_used_mib)


@contextmanager
def serving(name: str = "lstm") -> Iterator[Serving]:
    made = Serving(name)
    try:
        yield made
    finally:
        made.engine.close()


def test_a_gpu_without_memory_is_said_and_the_host_goes_on() -> None:
    model = read_model(find_model("seed_lstm").onnx)  # larger than what a context has in reserve
    memory = registry.choose(registry.AUTO)
    parcel = kernel_of(model, memory)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    side = LoopSide(RowRing(ring.ctypes.data, model.window, model.width), 3, memory, direct=True)
    with HostProcess() as host:
        host.warm(FORMAT)
        command = [sys.executable, "-c", FILL]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as filler:
            assert filler.stdin is not None
            assert filler.stdout is not None
            assert filler.stdout.readline() == "full\n"
            with pytest.raises(HostError, match="CUDA_ERROR_OUT_OF_MEMORY"):
                host.load(parcel, side.layout, (side.rows, side.host), side.box)
            filler.stdin.write("\n")
        host.load(parcel, side.layout, (side.rows, side.host), side.box)
        host.start()
    side.close()


def test_memory_is_what_it_was_after_each_unload() -> None:
    model = read_model(find_model("seed_lstm").onnx)
    memory = registry.choose(registry.AUTO)
    parcel = kernel_of(model, memory)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    side = LoopSide(RowRing(ring.ctypes.data, model.window, model.width), 3, memory, direct=True)
    found = []
    with HostProcess() as host:
        host.warm(FORMAT)
        for _ in range(4):
            host.load(parcel, side.layout, (side.rows, side.host), side.box)
            host.start()
            host.stop()
            found.append(used_mib())
    side.close()
    assert found[1:] == found[1:2] * 3  # the first load brings up what stays with a context


@pytest.mark.parametrize("end", ["close", "abort", "kill"])
def test_a_host_that_ends_gives_its_memory_back(end: str) -> None:
    with serving():  # Vulkan's device, too, stays with this process
        pass
    before = used_mib()
    with serving() as made:
        rows = rows_for(made.model, 2 * made.model.window)
        assert [made.feed(row) for row in rows][-1] == Code.OK
        host = made.engine.host
        if end != "close":
            getattr(host, end)()
            assert until(lambda: dead(host.pid), 5.0)
            assert made.feed(rows[0]) == Code.ENGINE_FAILED
            assert made.engine.error()
    assert until(lambda: used_mib() <= before, 5.0)


def test_the_gpu_is_free_when_the_loops_process_is_killed() -> None:
    before = used_mib()
    command = [sys.executable, "-m", "helpers.resident_serving", "lstm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        pid = int(session.stdout.readline())
        assert not dead(pid)
        session.kill()
        session.wait()
        assert until(lambda: dead(pid), 1.0)
    assert until(lambda: used_mib() <= before, 5.0)  # NVML is a little late


def test_a_storm_of_nan_is_over_with_its_window() -> None:
    with serving() as made:
        model = made.model
        rows = rows_for(model, 40 * model.window)
        first, last = model.window, 30 * model.window
        rows[first:last] = np.nan
        for i, row in enumerate(rows):
            code = made.feed(row)
            assert code == (Code.OK if i + 1 >= model.window else Code.ENGINE_FAILED)
            if code < 0:
                continue
            found = outputs(made.table)
            if first <= i < last + model.window - 1:
                assert np.isnan(found).all()
            else:
                window = rows[i - model.window + 1 : i + 1]
                np.testing.assert_allclose(found, windows(model, window)[0], atol=LIMIT)


def send_until(over: threading.Event, table: np.ndarray) -> None:
    """Rows that nobody waits for."""
    for seq in range(1, 1 << 30):
        if over.is_set():
            return
        do_submit(table, seq)
        do_advance(table, seq)
        time.sleep(20e-6)


def test_a_stop_under_load_leaves_a_host_that_loads_again() -> None:
    """Rows are on their way when it is told to stop, again and again."""
    model = checked(MODELS["lstm"]())
    memory = registry.choose(registry.AUTO)
    parcel = kernel_of(model, memory)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    with HostProcess() as host:
        for _ in range(30):
            side = LoopSide(
                RowRing(ring.ctypes.data, model.window, model.width), 3, memory, direct=True
            )
            host.load(parcel, side.layout, (side.rows, side.host), side.box)
            host.start()
            over = threading.Event()
            thread = threading.Thread(target=send_until, args=(over, side.handle()))
            thread.start()
            time.sleep(0.02)
            try:
                host.stop()
            finally:
                over.set()
                thread.join()
            side.close()


@pytest.mark.skipif(shutil.which(mps.PROGRAM) is None, reason=f"no {mps.PROGRAM}")
def test_an_mps_daemon_that_goes() -> None:
    model = checked(MODELS["lstm"]())
    source = Source(model, find_model("seed_lstm").onnx, "")
    settings = SessionConfig(data=(source.path,), backend="resident")
    ring = np.zeros((2 * model.window, model.width), np.float32)
    rows = RowRing(ring.ctypes.data, model.window, model.width)
    loader = resident.prepare(2, settings)
    try:
        first = loader.load(source, rows, settings)
        assert isinstance(first, MailboxEngine)
        try:
            pipe = Path(loader._sharing.environment()["CUDA_MPS_PIPE_DIRECTORY"])
            os.kill(int((pipe / f"{mps.PROGRAM}.pid").read_text()), signal.SIGKILL)
            assert until(loader._sharing.problem, 5.0)
            code = do_submit(first.handle(), 1)
            code = code if code < 0 else await_poll(first.handle(), 1, 2.0)
            assert code == Code.ENGINE_FAILED  # refused: its window is not complete; or it is gone
            assert "the MPS control daemon has ended" in first.error()
            with pytest.raises(HostError, match="the MPS control daemon has ended"):
                loader.load(source, rows, settings)
        finally:
            first.close()
    finally:
        loader.close()
