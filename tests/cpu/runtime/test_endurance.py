"""Thousands of rows through one engine: memory stays what it was, and so do the answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.engine_zoo import gru
from helpers.window_kernel import KERNELS, expected, parcel, weight
from tickrt.config import SessionConfig
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.host.process import HostProcess
from tickrt.runtime.backends import native
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.engine_bench import Feed, Stream
from tickrt.runtime.model_source import Source

ROWS, EARLY = 20_000, 5_000
NOISE_KIB = 1024  # a row that were kept would be several times as much


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def memory_after(feed: Feed, rows: np.ndarray, pids: Callable[[], list[int]]) -> np.ndarray:
    """KiB of each process after `EARLY` rows and after `ROWS`."""
    seen, sent = [], 0
    while sent < ROWS:
        feed.run(rows, 0.0)
        sent += len(rows)
        if sent in (EARLY, ROWS):
            seen.append([resident_kib(pid) for pid in pids()])
    return np.array(seen)


@pytest.fixture(scope="module")
def model() -> LoopModel:
    return loop_model(gru().SerializeToString(), "gru")


def test_native_neither_grows_nor_drifts(model: LoopModel) -> None:
    def make(ring: RowRing) -> Engine:
        source = Source(model, Path("gru"), model.sha256)
        return native.load(source, ring, SessionConfig(data=(Path("gru"),)))

    stream = Stream(model)
    feed = Feed(model.window, model.width, make)
    try:
        assert feed.describe()["backend"] == "native"
        (early,), (late,) = memory_after(feed, stream.rows, lambda: [os.getpid()])
        found = feed.run(stream.rows, 0.0).outputs
    finally:
        feed.close()
    assert late - early < NOISE_KIB
    np.testing.assert_allclose(found, stream.expected, atol=1e-5)


def test_a_mailbox_and_its_host_do_not_grow(model: LoopModel) -> None:
    """As many rows as fill the mailbox's slots many times over; the last are still answered."""

    def make(ring: RowRing) -> Engine:
        host = HostProcess(kernels=KERNELS)
        return MailboxEngine("window", model, ring, host, parcel(ring.window, ring.width))

    rows = np.random.default_rng(0).standard_normal((1000, model.width), np.float32)
    feed = Feed(model.window, model.width, make)
    engine = feed.engine
    assert isinstance(engine, MailboxEngine)
    try:
        assert 10 * engine.side.layout.slots < ROWS
        early, late = memory_after(feed, rows, lambda: [os.getpid(), engine.host.pid])
        found = feed.run(rows, 0.0).outputs
        assert engine.host.stats()["rows"] == ROWS + len(rows)
        assert engine.error() == ""
    finally:
        feed.close()
    assert (late - early < NOISE_KIB).all()
    weights = weight(model.window, model.width)
    for i in range(model.window, len(rows), 97):
        window = rows[i - model.window + 1 : i + 1]
        np.testing.assert_allclose(found[i], expected(window, weights), atol=1e-5)
