"""Event files into a ring: order, batches, a full ring, an early end, an error midway."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.event_files import make_events
from tickrt.compile.codes import BATCH_END, DEPTH, LOCAL, SELL
from tickrt.errors import ConfigError, DataError
from tickrt.feeds.file_feeder import FileFeeder
from tickrt.market.event_file import load_events, merge_events
from tickrt.market.event_stream import EventStream, open_stream
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import Ring
from tickrt.runtime.lifecycle import run_to_end


def batches_of(sizes: list[int], after: int = 0) -> np.ndarray:
    """Batches of these sizes, the times rising with each, and `after` events of one without end."""
    events = np.zeros(sum(sizes) + after, EVENT_DTYPE)
    events["ev"] = DEPTH | LOCAL | SELL
    events["ev"][np.cumsum(sizes) - 1] |= np.uint64(BATCH_END)
    events["local_ts"] = np.repeat(np.arange(len(sizes) + 1), [*sizes, after])
    events["order_id"] = np.arange(len(events))
    return events


def stream_of(path: Path, events: np.ndarray, chunk: int = 1 << 14) -> EventStream:
    np.save(path, events)
    return open_stream(path, chunk)


class LikeTheLoop:
    """Takes events as the loop does: gives a batch back when it is complete, and inside of one
    only what is more than half of the ring."""

    def __init__(self, ring: Ring, limit: int, rest_s: float = 0.0) -> None:
        self._ring, self._limit, self._rest_s = ring, limit, rest_s
        self.stop = np.zeros(2, np.int64)
        self.got: list[np.ndarray] = []
        self.visible: list[bool] = []  # at each look: whether the last visible event ends a batch
        self.stamps: set[int] = set()

    def run(self) -> int:
        view, q, first = self._ring.view, 0, 0
        patience = time.monotonic() + 60
        while not self.stop[1]:
            closed = self._ring.closed
            published = self._ring.published
            if q == published:
                if closed:
                    break
                assert time.monotonic() < patience, "nothing more came"
                time.sleep(1e-5)
                continue
            self.visible.append(self._ends(published - 1))
            for _ in range(min(published - q, self._limit)):
                self.got.append(view.events[q & view.mask].copy())
                self.stamps.add(int(view.stamps[q & view.mask]))
                q += 1
                if self._ends(q - 1) or q - first > view.mask >> 1:
                    first = q
                    consume(self._ring, first)
            time.sleep(self._rest_s)
        return 0

    def _ends(self, q: int) -> bool:
        view = self._ring.view
        return bool(view.events["ev"][q & view.mask] & np.uint64(BATCH_END))

    def events(self) -> np.ndarray:
        return np.array(self.got, EVENT_DTYPE)


def consume(ring: Ring, count: int) -> None:
    """Give slots back up to event number `count`."""
    ring.read(count - ring.consumed)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    yield
    assert "tickrt-file-feeder" not in {thread.name for thread in threading.enumerate()}


pytestmark = pytest.mark.usefixtures("no_thread_left")


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    after=st.integers(0, 40),
    chunk=st.integers(1, 60),
    limit=st.integers(1, 20),
    capacity=st.sampled_from([2, 16, 64]),
)
def test_the_loop_gets_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    after: int,
    chunk: int,
    limit: int,
    capacity: int,
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.npy"
    ring = Ring.local(capacity)
    feeder = FileFeeder([stream_of(path, batches_of(sizes, after), chunk)], ring)
    loop = LikeTheLoop(ring, limit)
    run_to_end(loop.run, loop.stop, companions=[feeder])
    assert loop.events().tobytes() == load_events(path).data.tobytes()
    assert loop.stamps == {0}
    if max(sizes) <= capacity and not after:
        assert all(loop.visible)  # no batch was ever seen in part


def test_several_files_and_a_slow_loop(tmp_path: Path) -> None:
    streams = [
        stream_of(tmp_path / f"{i}.npy", make_events(40, 1_000_000_000 + shift), 10)
        for i, shift in enumerate((0, 3, 10_000_000))
    ]
    ring = Ring.local(16)
    feeder, loop = FileFeeder(streams, ring), LikeTheLoop(ring, 5, rest_s=1e-3)
    run_to_end(loop.run, loop.stop, companions=[feeder])
    expected = merge_events([load_events(stream.path) for stream in streams])
    assert loop.events().tobytes() == expected.tobytes()
    assert all(loop.visible)


def wait_until_full(ring: Ring, events: int) -> None:
    deadline = time.monotonic() + 30
    while ring.published < events:
        assert time.monotonic() < deadline
        time.sleep(1e-3)


def test_it_stops_though_the_ring_is_full(tmp_path: Path) -> None:
    ring = Ring.local(16)
    feeder = FileFeeder([stream_of(tmp_path / "a.npy", batches_of([4] * 100))], ring)
    feeder.start()
    wait_until_full(ring, 16)
    feeder.finish()
    assert ring.closed
    assert (ring.published, ring.consumed) == (16, 0)
    feeder.finish()


def test_a_wrong_event_ends_the_loop_and_is_raised(tmp_path: Path) -> None:
    events = batches_of([4] * 25)
    events["px"][70] = -1.0
    ring = Ring.local(16)
    feeder = FileFeeder([stream_of(tmp_path / "a.npy", events, 8)], ring)
    loop = LikeTheLoop(ring, 5)
    with pytest.raises(DataError, match=r"a\.npy: row 70: px is -1\.0"):
        run_to_end(loop.run, loop.stop, companions=[feeder])
    assert loop.events().tobytes() == events[:64].tobytes()
    assert ring.closed
    feeder.finish()  # it has been said


def test_it_can_be_finished_without_a_start(tmp_path: Path) -> None:
    FileFeeder([stream_of(tmp_path / "a.npy", batches_of([4]))], Ring.local(16)).finish()


def test_no_files_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one event stream"):
        FileFeeder([], Ring.local(16))
