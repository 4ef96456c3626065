"""Recorded events into a ring: a thread that reads event files and publishes them as there is room.

Entry point: `FileFeeder`.

Invariants: events come in the order of `merge_streams` and carry no time of publication, so that
the loop takes them as those of a file; a batch becomes visible as a whole; the ring is closed when
nothing more will come, whatever went wrong.

Limit: a batch longer than the ring passes in parts of half of it. That is what the loop gives back
while it is inside a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.market.event_checks import batch_ends
from tickrt.market.event_stream import EventStream, merge_streams
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import Ring

__all__ = ["FileFeeder"]

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE
_SHORTEST_S, _LONGEST_S = 50e-6, 1e-3  # between two looks at a full ring


class FileFeeder:
    """Publishes the events of files, one per symbol, until they end or the loop does.

    Args:
        streams: the files; an event's `ival` becomes the index of its file.
        ring: nobody else publishes into it.

    Raises:
        ConfigError: no streams.
    """

    def __init__(self, streams: Sequence[EventStream], ring: Ring) -> None:
        self._pieces = merge_streams(streams)
        self._ring = ring
        self._loop_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tickrt-file-feeder", daemon=True)
        self._error: BaseException | None = None
        ring.publish(np.zeros(0, EVENT_DTYPE), stamped=False)  # compile, or load from the cache

    def start(self) -> None:
        """Begin to read and publish."""
        self._thread.start()

    def finish(self) -> None:
        """The loop has ended: stop, though the ring be full. A second call does nothing.

        Raises:
            DataError: what was wrong with a file.
            BaseException: whatever else stopped the thread.
        """
        self._loop_ended.set()
        if self._thread.is_alive():
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            with closing(self._pieces):
                for part in _parts(self._pieces, self._ring.capacity):
                    if not self._publish(part):
                        return
        except BaseException as error:  # raised again by `finish`
            self._error = error
        finally:
            self._ring.close()

    def _publish(self, part: Events) -> bool:
        """Publish all of it, waiting while the ring is full; False where the loop has ended."""
        pause = _SHORTEST_S
        while len(part):
            if self._loop_ended.is_set():
                return False
            taken = self._ring.publish(part, stamped=False)
            part = part[taken:]
            if taken:
                pause = _SHORTEST_S
            else:
                self._loop_ended.wait(pause)
                pause = min(2 * pause, _LONGEST_S)
        return True


def _parts(pieces: Iterator[Events], capacity: int) -> Iterator[Events]:
    """What to publish one after the other: whole batches that fit into a ring of `capacity`, and
    parts of half of it of those that do not."""
    half = capacity // 2
    rest: Events = np.zeros(0, EVENT_DTYPE)  # the beginning of a batch
    inside = False  # a long batch, of which parts have been published
    for piece in pieces:
        events = np.concatenate([rest, piece]) if len(rest) else piece
        ends = batch_ends(events) + 1
        lengths = np.diff(ends, prepend=0)
        long = lengths > capacity
        long[:1] |= inside
        done = 0
        for end, length in zip(ends[long].tolist(), lengths[long].tolist(), strict=True):
            yield events[done : end - length]
            yield from _halves(events[end - length : end], half)
            done = end
        whole = int(ends[-1]) if len(ends) else 0
        yield events[done:whole]
        inside = inside and not whole
        rest = events[whole:]
        if inside or len(rest) > capacity:
            yield from _halves(rest, half)
            inside, rest = True, rest[:0]
        rest = rest.copy()  # lets go of the piece
    yield rest


def _halves(events: Events, size: int) -> Iterator[Events]:
    """`events` in parts of at most `size`."""
    for start in range(0, len(events), size):
        yield events[start : start + size]
