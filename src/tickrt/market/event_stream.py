"""Event files in pieces: what `event_file` loads and merges, in bounded memory.

Entry points: `open_stream`, `merge_streams`.

Invariants: the pieces of a stream, put together, are what `load_events` returns; those of a merge,
what `merge_events` returns. An error is raised when its piece is read; events before it have been
handed out by then.

Opening looks at a file's flags up to the first mark of a batch. A file without marks is read twice:
where a run of LOCAL events with equal times ends is known by the one that follows, which may be
many pieces later.

Limit: a merge of several files holds the batch that is being read of each, however long.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.errors import ConfigError, DataError
from tickrt.market.event_checks import (
    EventChecker,
    batch_ends,
    completed,
    has_marks,
    local_rows,
    mark_runs,
    no_local_events,
)
from tickrt.market.event_reader import EventReader
from tickrt.memory.records import EVENT_DTYPE

__all__ = ["EventStream", "merge_streams", "open_stream"]

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE
_END_OF_TIME = np.iinfo(np.int64).max


class EventStream:
    """An event file to be read in pieces. Each iteration reads it anew, checked and marked.

    Attributes:
        path: the file.
        meta: what the file says of itself; empty for foreign files.
        instrument: the contract, from `meta` or by its symbol; None where the file names none.
        count: events in all.
        first_local_ns: `local_ts` of the first event that we received.
    """

    def __init__(self, path: Path, chunk: int) -> None:
        if chunk < 1:
            raise ConfigError(f"{path}: expected a chunk of at least one event, got {chunk}")
        self.path, self._chunk = path, chunk
        with EventReader(path) as reader:
            self.meta, self.instrument = reader.meta, reader.instrument
            self.count, self._identity = reader.count, reader.identity
            EventChecker(str(path), self.count)  # refuses a file without events
            self.first_local_ns, self._run_ends = _look(reader, chunk)

    def __iter__(self) -> Iterator[Events]:
        """Pieces of at most `chunk` events, each a new array.

        Raises:
            DataError: damaged or truncated here, changed since it was opened, or an event that
                `check_events` refuses.
        """
        checker = EventChecker(str(self.path), self.count)
        with EventReader(self.path) as reader:
            if reader.identity != self._identity:
                raise DataError(
                    f"{self.path}: changed since it was opened; start again when it is complete"
                )
            for index in range(-(-self.count // self._chunk)):
                piece = reader.read(self._chunk)
                try:
                    checker.check(piece)
                except DataError:
                    _find_damage(reader, self._chunk)
                    raise
                if self._run_ends is not None:
                    mark_runs(piece, last=bool(self._run_ends[index]))
                yield piece


def open_stream(path: str | os.PathLike[str], chunk: int = 1 << 14) -> EventStream:
    """Open an event file (ours or hftbacktest's ``.npz``, or a bare ``.npy``) to read in pieces.

    Args:
        path: the file.
        chunk: events of a piece, 64 bytes each.

    Raises:
        ConfigError: `chunk` is not positive.
        DataError: missing, damaged, of another format or dtype, or without events for us; the
            message names the file and the remedy.
    """
    return EventStream(Path(path), chunk)


def _find_damage(reader: EventReader, chunk: int) -> None:
    """Read to the end: what looks like a wrong event may be a damaged file, which is found later,
    at the latest by the checksum, and wants another remedy.

    Raises:
        DataError: damaged or truncated.
    """
    while len(reader.read(chunk)):
        pass


def _look(reader: EventReader, chunk: int) -> tuple[int, npt.NDArray[np.bool_] | None]:
    """What must be known before the first piece.

    Returns:
        `local_ts` of the first LOCAL event; for a file without marks, for each piece whether its
        last run of LOCAL events with equal times ends in it, else None.
    """
    ends = np.zeros(-(-reader.count // chunk), bool)
    first: int | None = None
    newest, before = -1, (0, 0)  # the last piece with LOCAL events, and the times of its last one
    for index in range(len(ends)):
        piece = reader.read(chunk)
        local = local_rows(piece)
        if not len(local):
            continue
        times = piece[["local_ts", "exch_ts"]][local[[0, -1]]]
        first = int(times["local_ts"][0]) if first is None else first
        if has_marks(piece):
            return first, None
        if newest >= 0:
            ends[newest] = times[0].item() != before
        newest, before = index, times[1].item()
    if first is None:
        raise no_local_events(str(reader.source))
    ends[newest] = True
    return first, ends


def merge_streams(streams: Sequence[EventStream]) -> Generator[Events, None, None]:
    """Several symbols' events in the order in which we received them, in pieces.

    Batches stay whole and are ordered by the `local_ts` at which they were complete; at equal times
    the earlier file goes first. `ival` becomes the index of the event's file. The pieces of several
    files end where a batch ends; those of one file are the stream's.

    Raises:
        ConfigError: no streams.
        DataError: while iterating, what a stream raises.
    """
    if not streams:
        raise ConfigError("merge_streams: expected at least one event stream, got none")
    numbered = [_numbered(stream, index) for index, stream in enumerate(streams)]
    return numbered[0] if len(numbered) == 1 else _merged(numbered)


def _numbered(stream: EventStream, index: int) -> Generator[Events, None, None]:
    """The pieces of a stream with its index in `ival`."""
    for piece in stream:
        piece["ival"] = index
        yield piece


class _Cursor:
    """What has been read of one file and not been handed out."""

    def __init__(self, pieces: Iterator[Events]) -> None:
        self._pieces = pieces
        self.events: Events = np.zeros(0, EVENT_DTYPE)  # of complete batches
        self.times: npt.NDArray[np.int64] = np.zeros(
            0, np.int64
        )  # of each, when its batch was complete
        self._open: list[Events] = []  # the batch that is being read
        self._latest = 0  # newest `local_ts` of a LOCAL event
        self.ended = False

    def fill(self) -> None:
        """Read until there is a complete batch, or to the end of the file."""
        while not len(self.events) and not self.ended:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
                self._complete(0)
                return
            local, ends = local_rows(piece), batch_ends(piece)
            if len(local):
                self._latest = int(piece["local_ts"][local[-1]])
            self._open.append(piece)
            if len(ends):
                self._complete(len(piece) - int(ends[-1]) - 1)

    def _complete(self, left: int) -> None:
        """What has been read is complete but for the last `left` events."""
        joined = np.concatenate([self.events, *self._open])
        count = len(joined) - left
        self.events, self._open = joined[:count], [joined[count:].copy()]
        self.times = completed(self.events, self._latest)

    def take_until(self, time: int, inclusive: bool) -> tuple[Events, npt.NDArray[np.int64]]:
        """Hand out the events of batches that were complete before `time`, or at it, with when."""
        count = np.searchsorted(self.times, time, "right" if inclusive else "left")
        events, times = self.events[:count], self.times[:count]
        self.events, self.times = self.events[count:], self.times[count:]
        return events, times


def _merged(files: Sequence[Iterator[Events]]) -> Generator[Events, None, None]:
    """The merge of several files. What a file that has not ended brings later comes after the last
    event that it has brought, so up to the earliest such event the order is known."""
    cursors = [_Cursor(pieces) for pieces in files]
    while True:
        for cursor in cursors:
            cursor.fill()
        known = [(int(c.times[-1]), index) for index, c in enumerate(cursors) if not c.ended]
        until, last = min(known) if known else (_END_OF_TIME, len(cursors))
        taken = [c.take_until(until, index <= last) for index, c in enumerate(cursors)]
        events = np.concatenate([events for events, _ in taken])
        if not len(events):
            return
        yield events[np.argsort(np.concatenate([times for _, times in taken]), kind="stable")]
