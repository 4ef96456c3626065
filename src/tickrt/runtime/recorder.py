"""The reader of a loop's record ring: what a report needs, in bounded memory, and all of it on
disk where that is wanted.

Entry point: `Recorder(ring, strategies, keep=…)`; `start` it before the loop, `finish` it after the
loop has ended. It reads in a thread of its own, without the GIL, 2¹⁵ records at a time.

Invariants: memory does not grow with the session: each strategy's signals are thinned while they
come (at `2 · SERIES` every second one is dropped, and only every second, fourth, … one is taken
from there on; the newest is always held), and the first `FILLS` fills are held. With `keep` every
record also goes to a temporary file, which has no name and is gone with the recorder.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import suppress
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import ConfigError
from tickrt.memory.records import DTYPES, FILL_DTYPE, RECORD_DTYPE, SIGNAL_DTYPE, of_kind
from tickrt.memory.ring import Ring
from tickrt.runtime.recorder_kernels import HELD, SEEN, STRIDE, drain

__all__ = ["FILLS", "SERIES", "Held", "Recorder"]

SERIES = 2000  # points of a chart
FILLS = 100_000  # fills that are held without `keep`
_AT_ONCE = 1 << 15
_IDLE_S = 0.001


class Held(NamedTuple):
    """What a recorder holds of P strategies, as compiled code sees it."""

    counts: NDArray[np.int64]  # [RECORD_KINDS] records read
    series: NDArray[np.void]  # SIGNAL_DTYPE[P, 2 · SERIES]
    series_state: NDArray[np.int64]  # [P, 3] signals seen, every how many-th is taken, held
    last: NDArray[np.void]  # SIGNAL_DTYPE[P] the newest
    fills: NDArray[np.void]  # FILL_DTYPE[FILLS]
    keep: NDArray[np.int64]  # [1] 1: copy every record out


def new_held(strategies: int, keep: bool) -> Held:
    """Nothing held yet."""
    state = np.zeros((strategies, 3), np.int64)
    state[:, STRIDE] = 1
    return Held(
        counts=np.zeros(codes.RECORD_KINDS, np.int64),
        series=np.zeros((strategies, 2 * SERIES), SIGNAL_DTYPE),
        series_state=state,
        last=np.zeros(strategies, SIGNAL_DTYPE),
        fills=np.zeros(FILLS, FILL_DTYPE),
        keep=np.array([int(keep)], np.int64),
    )


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
        self.held = new_held(strategies, keep)
        view = ring.view.events
        self._views = (view.view(SIGNAL_DTYPE), view.view(FILL_DTYPE))
        self._out = np.zeros(_AT_ONCE, RECORD_DTYPE)
        self.error: BaseException | None = None
        self._closed = False
        self._drain()  # compile, or load from the cache

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
            OSError: the records could not be kept: the disk is full; names the folder.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        error, self.error = self.error, None
        if isinstance(error, OSError) and error.filename is None:
            folder = tempfile.gettempdir()
            error.filename = f"{folder}: the run's records (TMPDIR names another folder)"
        if error is not None:
            raise error

    def _drain(self) -> int:
        return int(drain(self._ring.view, *self._views, self.held, self._out))

    def _read(self) -> None:
        while True:
            ended = self._ended.is_set()  # first: what was published before it is read below
            count = self._drain()
            if count:
                self._keep(count)
            elif ended:
                return
            else:
                time.sleep(_IDLE_S)

    def _keep(self, count: int) -> None:
        """Never raises: a reader that stops would make a replay wait for ever."""
        try:
            if self._file is not None:
                self._file.write(self._out[:count].tobytes())
        except Exception as error:  # raised again by finish
            self.error = self.error or error
            self._drop()

    def count(self, kind: int) -> int:
        """How many records of a kind were read."""
        return int(self.held.counts[kind])

    def series(self, p: int) -> NDArray[np.void]:
        """The signals of strategy `p`, thinned evenly, first and newest included: at most
        ``2 · SERIES + 1`` of `SIGNAL_DTYPE`."""
        seen, stride, held = (int(self.held.series_state[p, i]) for i in (SEEN, STRIDE, HELD))
        kept = self.held.series[p, :held]
        if seen and (seen - 1) % stride:
            return np.concatenate([kept, self.held.last[p : p + 1]])
        return kept.copy()

    def fills(self) -> NDArray[np.void]:
        """The first fills, at most `FILLS`: `FILL_DTYPE`."""
        return self.held.fills[: min(self.count(codes.RECORD_FILL), FILLS)]

    def records(self, kind: int) -> NDArray[np.void]:
        """Every record of a kind (`codes.RECORD_*`), in order; needs `keep`, after `finish`.

        Raises:
            ConfigError: the records were not kept, or are gone.
        """
        if self._closed:
            raise ConfigError("the session is closed: ask for its records and tables before")
        if self._file is None:
            raise ConfigError("the records of this run were not kept: set keep_records=True")
        self._file.flush()
        self._file.seek(0)
        parts = [np.zeros(0, DTYPES[kind])]
        while chunk := self._file.read(_AT_ONCE * RECORD_DTYPE.itemsize):
            parts.append(of_kind(np.frombuffer(chunk, RECORD_DTYPE), kind))
        self._file.seek(0, 2)
        return np.concatenate(parts)

    def close(self) -> None:
        """Drop what was kept."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        self.held.keep[0] = 0
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # a full disk refuses what is still buffered
                file.close()
