"""Resident engines that share a GPU: the MPS daemon goes while a session starts, and while it runs.

MPS and the GPU are stand-ins (`helpers.mps_stand_in`, `helpers.resident_stand_in`).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import mps_stand_in, resident_stand_in
from helpers.engine_bench import await_poll, do_submit
from helpers.programs import MODELS
from tickrt.config import SessionConfig
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.runnable import runnable
from tickrt.engines.bundle.compat import load_bundle
from tickrt.errors import Code, HostError
from tickrt.host import process
from tickrt.runtime.backends import resident
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.model_source import Source

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the path")


class Desk:
    """A bundle, a ring of rows, and what loads two engines."""

    def __init__(self, folder: Path) -> None:
        path = folder / "m.onnx"
        path.write_bytes(MODELS["lstm"]().SerializeToString())
        write_built(build(BuildRequest(path, backend="resident")), folder / "m.bundle")
        with load_bundle(folder / "m.bundle", allow_unsigned=True) as bundle:
            model, _ = runnable(bundle)
            self.source = Source(model, folder / "m.bundle", bundle.digest, built=True)
        self.settings = SessionConfig(data=(path,), backend="resident", allow_unsigned=True)
        self.rows = np.zeros((2 * model.window, model.width), np.float32)
        self.ring = RowRing(self.rows.ctypes.data, model.window, model.width)
        self.loader = resident.prepare(2, self.settings)

    def load(self) -> MailboxEngine:
        engine = self.loader.load(self.source, self.ring, self.settings)
        assert isinstance(engine, MailboxEngine)
        return engine

    def end_daemon(self) -> None:
        """Kill it, and wait until that shows."""
        pid = mps_stand_in.daemon_pid(self.loader._sharing.environment())
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 10.0
        while not self.loader._sharing.problem():
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    mps_stand_in.install(tmp_path, monkeypatch)
    resident_stand_in.hosts(monkeypatch)
    made = Desk(tmp_path)
    yield made
    made.loader.close()


def test_the_daemon_is_gone_before_a_host_starts(desk: Desk) -> None:
    desk.end_daemon()
    words = "the MPS control daemon has ended: Start: the engines cannot share the GPU"
    with pytest.raises(HostError, match=words):
        desk.load()


def test_the_daemon_goes_while_a_host_starts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA then gives the host a GPU that it shares in time slices, and says nothing."""
    made: list[Any] = []
    standing_in = process.HostProcess

    def start(*arguments: Any, **named: Any) -> Any:
        desk.end_daemon()
        made.append(standing_in(*arguments, **named))
        return made[0]

    monkeypatch.setattr(process, "HostProcess", start)
    with pytest.raises(HostError, match=r"daemon has ended: .*start the session again"):
        desk.load()
    assert made[0].why == "was closed"


def test_the_daemon_goes_while_they_run(desk: Desk) -> None:
    """Who runs goes on while the GPU lets it; the reason is there when it does not."""
    engines = [desk.load(), desk.load()]
    assert [engine.error() for engine in engines] == ["", ""]
    desk.end_daemon()
    for engine in engines:
        assert engine.error() == "the MPS control daemon has ended: Start"
        assert do_submit(engine.handle(), 1) == Code.OK
        assert await_poll(engine.handle(), 1) == Code.ENGINE_FAILED  # the window is not complete
        os.kill(engine.host.pid, signal.SIGKILL)
        while not engine.host.why:
            time.sleep(0.01)
        assert engine.error().startswith("its host was ended by signal 9; the MPS control daemon")
        engine.close()
