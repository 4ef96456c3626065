"""A host process: asked, watched, ended; whatever happens has its error, and nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.engine_bench import Bench, T, await_poll, do_advance, do_poll, do_submit, outputs
from helpers.processes import dead, until
from helpers.window_kernel import KERNELS, expected, parcel, weight
from tickrt.errors import (
    Code,
    ConfigError,
    EngineError,
    HostError,
    IncompatibleError,
)
from tickrt.host import process
from tickrt.host.kernels import reference
from tickrt.host.mailbox import BEAT, GENERATION, GONE, STATE, STOPPED
from tickrt.host.process import HostProcess, Limits
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide

F = 3
QUICK = Limits(request=1.0, load=1.5)


def threads(pid: int) -> set[str]:
    """What the threads of a process are doing, by letter."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


class Running:
    """A host that serves the window model to a bench."""

    def __init__(self, limits: Limits | None = None, **facts: Any) -> None:
        self.host = HostProcess(kernels=KERNELS, limits=limits)
        self.bench = Bench(lambda ring: LoopSide(ring, 3), F)  # type: ignore[arg-type, return-value]
        self.side: LoopSide = self.bench.engine  # type: ignore[assignment]
        self.table = self.bench.table
        self.load(**facts)
        self.host.start()

    def load(self, **facts: Any) -> None:
        side = self.side
        memories = (side.rows, side.host)
        self.host.load(parcel(T, F, **facts), side.layout, memories, side.box)

    def renew(self) -> None:
        """A mailbox of its own for the next engine."""
        self.side.close()
        self.side = LoopSide(RowRing(self.bench.rows.ctypes.data, T, F), 3)
        self.table = self.side.handle()

    def tick(self, seq: int) -> int:
        self.bench.write(seq, np.full(F, seq, np.float32))
        code = int(do_submit(self.table, seq))
        return code if code < 0 else await_poll(self.table, seq)

    def close(self) -> None:
        self.host.close()
        self.side.close()


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(**options: Any) -> Running:
        made.append(Running(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()
        assert dead(each.host.pid)


def test_it_says_what_it_is_and_answers(running: Callable[..., Running]) -> None:
    run = running()
    assert run.host.facts["python"] == sys.version.split()[0]
    known = "onnx onnx_windows program resident self tensorrt tensorrt_rtx window"
    assert run.host.facts["formats"] == known.split()
    window = np.zeros((T, F), np.float32)
    for seq in range(1, 30):
        window = np.vstack([window[1:], np.full(F, seq, np.float32)])
        assert run.tick(seq) == Code.OK
        np.testing.assert_allclose(outputs(run.table), expected(window, weight(T, F)), rtol=1e-6)
        assert do_advance(run.table, seq) == Code.OK
    stats = run.host.stats()
    assert (stats["rows"], stats["answers"], stats["refused"], stats["resets"]) == (29, 29, 0, 0)
    assert stats["max_rss_mb"] > 1


def test_rows_before_the_first_answer_and_an_error_of_one_row(
    running: Callable[..., Running],
) -> None:
    run = running(needs=2)
    assert run.tick(1) == Code.ENGINE_FAILED
    assert run.side.box.text == "row 1: only 0 rows came before it"
    run.bench.write(2, np.zeros(F))
    do_advance(run.table, 2)
    assert run.tick(3) == Code.OK
    assert run.host.stats()["refused"] == 1


def test_a_kernel_that_serves_by_itself_is_watched(running: Callable[..., Running]) -> None:
    run = running(format_="self", broken_at=4)
    beats = run.side.box.get(BEAT)
    assert [run.tick(1), run.tick(2)] == [Code.OK, Code.OK]
    assert until(lambda: run.side.box.get(BEAT) > beats)
    run.host.stop()
    run.renew()
    run.load(format_="self", broken_at=4)
    run.host.start()
    assert [run.tick(3), run.tick(4)] == [Code.OK, Code.ENGINE_FAILED]
    assert run.side.box.text == "EngineError: launch failed: broken at 4"
    assert run.tick(5) == Code.ENGINE_FAILED
    run.host.stop()


def test_killed_in_mid_row(running: Callable[..., Running]) -> None:
    run = running(stuck_at=3)
    assert (run.tick(1), run.tick(2)) == (Code.OK, Code.OK)
    run.bench.write(3, np.zeros(F))
    assert do_submit(run.table, 3) == Code.OK
    assert do_poll(run.table, 3) == Code.PENDING
    os.kill(run.host.pid, signal.SIGKILL)
    assert await_poll(run.table, 3) == Code.ENGINE_FAILED
    assert run.tick(4) == Code.ENGINE_FAILED
    assert until(lambda: run.host.why == "was ended by signal 9")
    with pytest.raises(HostError, match="was ended by signal 9"):
        run.host.stats()


def test_a_kernel_that_breaks_ends_the_engine_not_the_host(running: Callable[..., Running]) -> None:
    run = running(broken_at=2)
    assert run.tick(1) == Code.OK
    assert run.tick(2) == Code.ENGINE_FAILED
    assert run.side.box.text == "ValueError: broken at 2"
    assert run.tick(3) == Code.ENGINE_FAILED
    run.host.stop()
    assert run.host.why == ""


def test_abort_ends_it_without_a_question(running: Callable[..., Running]) -> None:
    run = running()
    assert run.tick(1) == Code.OK
    run.host.abort()
    assert until(lambda: run.side.box.get(GONE) != 0)
    assert run.side.box.get(STATE) == STOPPED
    assert until(lambda: dead(run.host.pid))
    assert run.tick(2) == Code.ENGINE_FAILED
    with pytest.raises(HostError, match="was aborted"):
        run.host.stats()


def test_abort_ends_one_whose_kernel_does_not_stop(running: Callable[..., Running]) -> None:
    """A process that ends gives the GPU back, whatever its kernel does."""
    run = running(format_="self", no_end=True)
    assert run.tick(1) == Code.OK
    run.host.abort()
    assert until(lambda: dead(run.host.pid))
    assert run.side.box.text == "EngineError: the kernel does not stop"
    assert run.tick(2) == Code.ENGINE_FAILED


def test_two_loads_and_unloads(running: Callable[..., Running]) -> None:
    run = running()
    assert run.tick(1) == Code.OK
    with pytest.raises(HostError, match="has an engine already"):
        run.load()
    run.host.stop()
    with pytest.raises(HostError, match="has no engine"):
        run.host.stop()
    run.renew()
    run.load()
    run.host.start()
    assert run.side.box.get(GENERATION) == 2
    assert run.tick(2) == Code.OK
    run.host.stop()
    assert run.host.stats()["generation"] == 2


def test_out_of_memory_is_an_answer(running: Callable[..., Running]) -> None:
    run = running()
    run.host.stop()
    with pytest.raises(EngineError, match=r"engine host \(load\): out of memory: Unable to alloc"):
        run.load(out_of_memory=True)
    run.load()  # nothing of the refused one is left


def test_a_format_without_a_kernel() -> None:
    with HostProcess() as host, pytest.raises(IncompatibleError) as caught:
        host.warm("tensorrt_9")
    assert "no kernel runs engines of the format 'tensorrt_9'; there are onnx" in str(caught.value)


def test_a_kernel_that_cannot_be_imported() -> None:
    with (
        HostProcess(kernels={"far": "no_such_library"}) as host,
        pytest.raises(HostError, match="the kernel for 'far' cannot be imported: No module"),
    ):
        host.warm("far")


def test_a_request_that_it_does_not_know() -> None:
    with HostProcess() as host, pytest.raises(HostError, match="unknown request 'dance'"):
        host.request("dance")


def test_a_spare_one_is_warm_and_has_no_engine() -> None:
    with HostProcess() as host:
        host.warm("program")
        assert host.stats()["generation"] == 0
        with pytest.raises(HostError, match="load one first"):
            host.start()


def test_one_that_hangs_in_a_request_is_killed() -> None:
    host = HostProcess(kernels=KERNELS, limits=QUICK)
    rows = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, T, F), 3)
    with pytest.raises(HostError, match=r"was ended: .*nothing came for 1.5 s"):
        host.load(parcel(T, F, load_s=60.0), side.layout, (side.rows, side.host), side.box)
    assert dead(host.pid)
    with pytest.raises(HostError, match="nothing came"):
        host.start()
    host.close()
    side.close()


def test_a_stopped_process_is_a_hung_one(running: Callable[..., Running]) -> None:
    run = running(limits=Limits(silence=0.8))
    assert run.tick(1) == Code.OK
    os.kill(run.host.pid, signal.SIGSTOP)
    assert until(lambda: threads(run.host.pid) == {"T"})
    run.bench.write(2, np.zeros(F))
    do_submit(run.table, 2)
    assert await_poll(run.table, 2) == Code.ENGINE_FAILED
    assert until(lambda: dead(run.host.pid))
    assert run.host.why == "was ended: it had been silent for 0.8 s"


def test_an_engine_that_does_not_stop_is_reported(
    running: Callable[..., Running],
) -> None:
    run = running(stuck_at=1)
    run.bench.write(1, np.zeros(F))
    do_submit(run.table, 1)
    assert until(lambda: run.host.stats()["rows"] == 1)
    with pytest.raises(HostError, match="does not come to an end within 2 s"):
        run.host.stop()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what runs in the background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_caller_that_is_interrupted_leaves_no_host_behind() -> None:
    host = HostProcess(kernels=KERNELS)
    rows = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, T, F), 3)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        host.load(parcel(T, F, load_s=60.0), side.layout, (side.rows, side.host), side.box)
    assert dead(host.pid)
    host.close()
    side.close()


@pytest.mark.parametrize("kind", ["serving", "spare", "loading"])
def test_it_does_not_outlive_its_parent(kind: str) -> None:
    command = [sys.executable, "-m", "helpers.host_parent", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not dead(pid)
        parent.kill()
    assert until(lambda: dead(pid))


def test_its_page_of_options_is_found_by_the_module_too() -> None:
    command = [sys.executable, "-m", "tickrt.host", "--help"]
    assert "--control-fd" in subprocess.run(command, capture_output=True, text=True).stdout


def test_one_whose_parent_is_another_ends_at_once() -> None:
    command = [sys.executable, "-m", "tickrt.host", "--control-fd", "0", "--parent", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (ended.returncode, ended.stderr) == (1, "its parent has died\n")


def test_an_aborted_one_that_does_not_listen_is_killed(running: Callable[..., Running]) -> None:
    run = running(stuck_at=1)
    run.bench.write(1, np.zeros(F))
    do_submit(run.table, 1)
    assert until(lambda: run.host.stats()["rows"] == 1)
    run.host.abort()
    run.host.close()
    assert dead(run.host.pid)
    assert do_poll(run.table, 1) == Code.ENGINE_FAILED


def test_what_it_prints_is_kept_within_bounds(running: Callable[..., Running]) -> None:
    run = running(chatter=100)
    size = 0
    for seq in range(1, 60):
        assert run.tick(seq) == Code.OK
        do_advance(run.table, seq)
        size = max(size, os.fstat(run.host._log).st_size)
    assert size > 1 << 20
    assert until(lambda: os.fstat(run.host._log).st_size < 1 << 20)
    assert run.tick(60) == Code.OK
    assert run.host.log().endswith("talk")


def test_it_outlives_the_thread_that_asked_for_it() -> None:
    made: list[HostProcess] = []
    thread = threading.Thread(target=lambda: made.append(HostProcess()))
    thread.start()
    thread.join()
    with made[0] as host:
        time.sleep(0.2)
        assert host.stats()["generation"] == 0


@pytest.mark.parametrize(
    ("python", "kind", "words"),
    [
        ("/no/such/python", ConfigError, "engine_python: /no/such/python: No such file"),
        ("/dev/null", ConfigError, "engine_python: /dev/null: Permission denied"),
        ("/bin/false", HostError, r"status 1 \(engine_python has to name a Python interpreter"),
        ("/bin/ls", HostError, r"status 2: /bin/ls: (.|\n)*\(engine_python has to name a Python"),
    ],
)
def test_an_interpreter_that_is_none(python: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        HostProcess(python)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_without_numpy_says_so(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('no numpy here')")
    with pytest.raises(
        HostError, match="status 1: this interpreter cannot run an engine host: no nu"
    ):
        HostProcess(environment={"PYTHONPATH": str(tmp_path)})


def test_an_interpreter_that_says_nothing(tmp_path: Path) -> None:
    silent = script(tmp_path / "python", "echo 'waiting for a licence' >&2; exec sleep 60")
    with pytest.raises(HostError, match=r"nothing came for 0\.5 s: waiting for a licence"):
        HostProcess(silent, limits=Limits(start=0.5))


def test_what_a_script_has_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    silent = script(tmp_path / "python", f"sleep 1000 & echo $! > {child}; wait")
    with pytest.raises(HostError, match="nothing came"):
        HostProcess(silent, limits=Limits(start=0.5))
    number = int(child.read_text())
    assert until(lambda: dead(number), 2.0)


def test_whoever_waits_long_for_an_interpreter_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    silent = script(tmp_path / "python", "exec sleep 60")
    monkeypatch.setattr(process, "_NOTICE_S", 0.1)
    with pytest.raises(HostError, match=r"nothing came for 0\.3 s \(engine_python has to name"):
        HostProcess(silent, limits=Limits(start=0.3))
    assert f"engine host ({silent}): it has said nothing for 0.1 s" in caplog.text


def test_an_engine_is_one_request_away_from_a_bad_one() -> None:
    """What the kernel makes of a payload is an answer, not the host's end."""
    rows = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, T, F), 3)
    memories = (side.rows, side.host)
    bad = reference.parcel("bad.bin", b"not a program")
    with HostProcess(kernels=KERNELS) as host:
        with pytest.raises(EngineError, match="not a program of this version"):
            host.load(bad, side.layout, memories, side.box)
        host.load(parcel(T, F), side.layout, memories, side.box)
    side.close()


def test_parity_rows_are_answered_before_it_starts() -> None:
    rows = np.random.default_rng(1).normal(size=(20, F)).astype(np.float32)
    weights = weight(T, F)
    wanted = np.full((20, 3), np.nan, np.float32)
    for i in range(T - 1, 20):
        wanted[i] = expected(rows[i - T + 1 : i + 1], weights)
    ring = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(ring.ctypes.data, T, F), 3)
    with HostProcess(kernels=KERNELS) as host:
        host.load(parcel(T, F, needs=2), side.layout, (side.rows, side.host), side.box)
        assert host.verify(rows, wanted, 1e-6) <= 1e-6
        off = wanted + np.float32(0.01)
        with pytest.raises(EngineError, match=r"20 parity rows differ by up to 0\.01, .* 0\.001"):
            host.verify(rows, off, 1e-3)
        host.stop()
        host.load(parcel(T, F, nan_at=7), side.layout, (side.rows, side.host), side.box)
        with pytest.raises(EngineError, match="differ by up to nan"):
            host.verify(rows, wanted, 1e-3)
    side.close()
