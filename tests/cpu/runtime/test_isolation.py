"""Strategies beside a sick one: each engine in a host of its own, and one crashes, goes mad, hangs.

What the others answer is what they answer without it, and only it counts faults.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sessions import config, market_file, settings, tiny_model, tiny_spec
from helpers.window_kernel import KERNELS, parcel
from tickrt import backends
from tickrt.backends import Probe
from tickrt.compile import codes
from tickrt.config import SessionConfig
from tickrt.errors import Code
from tickrt.host.process import HostProcess
from tickrt.runtime.backends import native, reference
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.model_source import Source
from tickrt.runtime.session import Session
from tickrt.strategy.state import Mode

BATCHES, KILLED_AT, T = 300, 100, 4
DEADLINE_US = 1e6
POLL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
Loader = Callable[[Source, RowRing, SessionConfig], Engine]


class Ward:
    """A backend that loads each model by what it is called."""

    def __init__(self, **loaders: Loader) -> None:
        self._loaders = loaders

    def probe(self, targets: tuple[str, ...] = ()) -> Probe:
        return Probe()

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        return self._loaders[source.path.stem](source, ring, settings)


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def open_(**loaders: Loader) -> None:
        monkeypatch.setitem(backends._known, "ward", Ward(**loaders))

    return open_


def hosted(**facts: Any) -> Loader:
    """The window model in a host of its own; `facts` are its faults."""

    def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        host = HostProcess(kernels=KERNELS)
        return MailboxEngine("window", source.model, ring, host, parcel(T, ring.width, **facts))

    return load


class Patient(NullEngine):
    """Has its answer once somebody else has been asked for his; or at once, if it is that one."""

    def __init__(self, asked: list[int], waits: bool) -> None:
        super().__init__()
        ready = POLL(int(super().handle()[codes.ENGINE_POLL]))

        def poll(ctx: int, seq: int) -> int:
            if waits:
                return int(ready(ctx, seq)) if seq in asked else codes.PENDING
            asked.append(seq)
            return int(ready(ctx, seq))

        self._poll = POLL(poll)

    def handle(self) -> Any:
        table = super().handle()
        table[codes.ENGINE_POLL] = ctypes.cast(self._poll, ctypes.c_void_p).value
        return table


def two(folder: Path, batches: int, **changes: Any) -> SessionConfig:
    """A session of the strategies `well` and `sick`, each with a model of its own."""
    spec = tiny_spec(folder, T)
    named = {}
    for seed, name in enumerate(("well", "sick")):
        named[name] = tiny_model(spec, folder / f"{name}.onnx", seed=seed)
    made = [settings(folder, name=name, model=str(path)) for name, path in named.items()]
    data = market_file(folder / "m.npz", batches)
    options = {"backend": "ward", "deadline_us": DEADLINE_US, **changes}
    return config(folder, data, *made, **options)


def number_of(session: Session, name: str) -> int:
    return [slot.name for slot in session.assembly.slots].index(name)


def answers(session: Session, name: str) -> Any:
    """What a strategy decided on, row by row: the row, its signal, the engine's code, the mode."""
    signals = session.signals()
    return signals[signals["strategy"] == number_of(session, name)][
        ["seq", "p_down", "p_flat", "p_up", "code", "mode", "intents"]
    ]


def played(made: SessionConfig, at: Callable[[Session, int], None] | None = None) -> Any:
    """The answers of `well` and of `sick`, and the faults that the session counted."""
    with Session(made) as session:

        def look(done: int, total: int) -> None:
            if at is not None:
                at(session, done)

        report = session.run(look)
        return answers(session, "well"), answers(session, "sick"), report


def test_a_slow_engine_holds_up_nobody_else(tmp_path: Path, ward: Any) -> None:
    """It answers only after the other was asked, in whatever order the loop knows them."""
    for first in ("well", "sick"):
        folder = tmp_path / first
        folder.mkdir()
        asked: list[int] = []
        ward(
            well=lambda *_, seen=asked, waits=first == "well": Patient(seen, waits),
            sick=lambda *_, seen=asked, waits=first == "sick": Patient(seen, waits),
        )
        well, sick, report = played(two(folder, 20))
        assert report.faults == 0
        assert len(well) == len(sick) == 20 - (T - 1)
        assert not well["code"].any()
        assert not sick["code"].any()


@pytest.fixture
def healthy(tmp_path: Path, ward: Any) -> Any:
    """What `well` answers beside a healthy one."""
    ward(well=reference.load, sick=native.load)
    well, _, report = played(two(tmp_path, BATCHES))
    assert report.faults == 0
    assert len(well) == BATCHES - (T - 1)
    return well


def test_nan_for_ever(tmp_path: Path, ward: Any, healthy: Any) -> None:
    ward(well=reference.load, sick=hosted(nan_from=0))
    well, sick, report = played(two(tmp_path, BATCHES))
    np.testing.assert_array_equal(well, healthy)
    assert set(sick["code"]) == {Code.ENGINE_NOT_FINITE}
    assert set(sick["mode"]) == {Mode.FALLBACK}
    assert report.faults == len(sick) == BATCHES - (T - 1)


def test_too_slow_for_its_deadline(tmp_path: Path, ward: Any, healthy: Any) -> None:
    ward(well=reference.load, sick=hosted(answer_s=0.1))
    made = two(tmp_path, BATCHES, deadline_us=50_000.0)
    well, sick, report = played(made)
    np.testing.assert_array_equal(well, healthy)
    assert set(sick["code"]) <= {Code.ENGINE_TIMEOUT, Code.ENGINE_STALE, Code.RING_FULL}
    assert sick["code"][0] == Code.ENGINE_TIMEOUT
    assert report.faults == len(sick) == BATCHES - (T - 1)


def test_a_host_that_is_killed(tmp_path: Path, ward: Any, healthy: Any) -> None:
    """Somewhere on the way: it answers until then, and never after."""
    ward(well=reference.load, sick=hosted())
    killed = []

    def kill(session: Session, done: int) -> None:
        if not killed and done > KILLED_AT:
            (sick,) = (e for e in session.assembly.engines if e.backend == "window")
            killed.append(sick.host.pid)  # type: ignore[attr-defined]
            os.kill(killed[0], signal.SIGKILL)

    well, sick, report = played(two(tmp_path, BATCHES, pace=1.0), kill)
    assert killed
    np.testing.assert_array_equal(well, healthy)
    faults = np.flatnonzero(sick["code"])
    assert report.faults == len(faults)
    assert 0 < faults[0] < len(sick) - 1
    assert list(faults) == list(range(faults[0], len(sick)))
    assert set(sick["code"][faults]) <= {Code.ENGINE_FAILED, Code.ENGINE_TIMEOUT}
    assert sick["code"][-1] == Code.ENGINE_FAILED
