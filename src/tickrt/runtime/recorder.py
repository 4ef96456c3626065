"""The reader of a loop's record ring: what a report needs, in bounded memory, and all of it on
disk where that is wanted.

Entry point: `Recorder(ring, strategies, keep)`; `start` it before the loop, `finish` it after the
loop has ended. It reads in a thread of its own, 2¹⁵ records at a time.

Invariants: memory does not grow with the session: each strategy's signals are thinned while they
come (every second one is dropped when there are more than `2 · SERIES`), and the first `FILLS`
fills are held. With `keep` every record also goes to a temporary file, which has no name
and is gone with the recorder.
"""

from __future__ import annotations

import tempfile
import threading
import time
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.memory.records import DTYPES, RECORD_DTYPE, SIGNAL_DTYPE, of_kind
from tickrt.memory.ring import Ring

__all__ = ["FILLS", "SERIES", "Recorder", "Thinned"]

SERIES = 2000  # points of a chart
FILLS = 100_000  # fills that are held without `keep`
_AT_ONCE = 1 << 15
_IDLE_S = 0.001


class Thinned:
    """Records of one kind, evenly thinned while they come.

    Every record is held up to ``2 · limit``; then every second one is dropped, and only every
    second, fourth, … one is taken from there on. The newest is always held.
    """

    def __init__(self, limit: int = SERIES) -> None:
        self._limit = limit
        self._stride, self.count = 1, 0
        self._parts: list[NDArray[np.void]] = []
        self._held = 0
        self._last: NDArray[np.void] = np.zeros(0, SIGNAL_DTYPE)

    def add(self, records: NDArray[np.void]) -> None:
        """Take records in their order."""
        if not len(records):
            return
        first = -self.count % self._stride
        chosen = records[first :: self._stride].copy()
        self._parts.append(chosen)
        self._held += len(chosen)
        self.count += len(records)
        self._last = records[-1:].copy()
        while self._held > 2 * self._limit:
            kept = np.concatenate(self._parts)[::2]
            self._parts, self._held, self._stride = [kept], len(kept), self._stride * 2

    def records(self) -> NDArray[np.void]:
        """What is held, in order."""
        if not self._parts:
            return self._last
        held = np.concatenate(self._parts)
        if (self.count - 1) % self._stride:
            held = np.concatenate([held, self._last])
        return held


class Recorder:
    """Reads `ring` (of `RECORD_DTYPE`) until the loop that fills it has ended.

    Args:
        ring: the record ring.
        strategies: how many the loop has.
        keep: hold every record, on disk.
    """

    def __init__(self, ring: Ring, strategies: int, *, keep: bool = False) -> None:
        self._ring = ring
        self._ended = threading.Event()
        self._thread = self._new_thread()
        self._file: IO[bytes] | None = None
        if keep:
            self._file = tempfile.TemporaryFile(prefix="tickrt-records-")  # noqa: SIM115 - see close
        self._fills: list[NDArray[np.void]] = []
        self._fills_held = 0
        self.counts = np.zeros(codes.RECORD_KINDS, np.int64)
        self.series = [Thinned() for _ in range(strategies)]
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin to read; again, where the loop goes on after an end."""
        self._ended.clear()
        self._thread = self._new_thread()
        self._thread.start()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._read, name="tickrt-recorder", daemon=True)

    def finish(self) -> None:
        """Read what is left and stop; the loop has ended. A second call does nothing.

        Raises:
            OSError: the records could not be kept: the disk is full.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _read(self) -> None:
        while True:
            ended = self._ended.is_set()  # first: what was published before it is read below
            records = self._ring.read(_AT_ONCE)
            if len(records):
                self._take(records)
            elif ended:
                return
            else:
                time.sleep(_IDLE_S)

    def _take(self, records: NDArray[np.void]) -> None:
        """Never raises: a reader that stops would make a replay wait for ever."""
        try:
            self._note(records)
        except OSError as error:
            self.error = self.error or error
            self._file = None

    def _note(self, records: NDArray[np.void]) -> None:
        self.counts += np.bincount(records["record"], minlength=codes.RECORD_KINDS)
        signals = of_kind(records, codes.RECORD_SIGNAL)
        for p, series in enumerate(self.series):
            series.add(signals[signals["strategy"] == p])
        fills = of_kind(records, codes.RECORD_FILL)[: FILLS - self._fills_held]
        if len(fills):
            self._fills.append(fills)
            self._fills_held += len(fills)
        if self._file is not None:
            self._file.write(records.tobytes())

    def fills(self) -> NDArray[np.void]:
        """The first fills, at most `FILLS`: `FILL_DTYPE`."""
        empty = np.zeros(0, DTYPES[codes.RECORD_FILL])
        return np.concatenate([empty, *self._fills])

    def records(self, kind: int) -> NDArray[np.void]:
        """Every record of a kind (`codes.RECORD_*`), in order; needs `keep`, after `finish`.

        Raises:
            ValueError: the records were not kept.
        """
        if self._file is None:
            raise ValueError("the records of this run were not kept: set keep_records")
        self._file.flush()
        self._file.seek(0)
        parts = [np.zeros(0, DTYPES[kind])]
        while chunk := self._file.read(_AT_ONCE * RECORD_DTYPE.itemsize):
            parts.append(of_kind(np.frombuffer(chunk, RECORD_DTYPE), kind))
        self._file.seek(0, 2)
        return np.concatenate(parts)

    def close(self) -> None:
        """Drop what was kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
