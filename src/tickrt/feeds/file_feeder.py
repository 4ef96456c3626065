"""Recorded events into a ring: a thread that reads event files and publishes them as there is room.

Entry point: `FileFeeder`.

Invariants: events come in the order of `merge_streams` and carry no time of publication, so that
the loop takes them as those of a file; the ring is closed when nothing more will come, whatever
went wrong. A batch may become visible in parts: the loop waits for its end.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

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
                for part in self._pieces:
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
