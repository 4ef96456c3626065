"""What makes events usable: the checks of an event array, and the marks at the ends of batches.

Entry points: `EventChecker` for events that come in pieces, `check_events` and `mark_batches` for a
whole array, `completed` for the order in which symbols are merged.

Valid events: the times of LOCAL events and of EXCH events never go back, prices and quantities are
finite and not negative, a depth event has exactly one side. Rows are counted from 0, from the
file's first event on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import (
    BATCH_END,
    BBO,
    BUY,
    CLEAR,
    DEPTH,
    EXCH,
    KIND_MASK,
    LOCAL,
    SELL,
    SNAPSHOT,
)
from tickrt.errors import DataError

__all__ = [
    "EventChecker",
    "batch_ends",
    "check_events",
    "completed",
    "has_marks",
    "local_rows",
    "mark_batches",
    "mark_runs",
    "no_local_events",
]

_PIECE = 1 << 14  # events that stay in the processor's cache from one check to the next

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE
Rows = npt.NDArray[np.intp]


class EventChecker:
    """Checks the events of one file, piece after piece, in order.

    Args:
        where: stands in front of every message, e.g. the file's name.
        count: how many events there are in all.

    Raises:
        DataError: there are no events.
    """

    def __init__(self, where: str, count: int) -> None:
        if count == 0:
            raise DataError(f"{where}: holds no events; convert or simulate it again")
        self._where, self._count = where, count
        self._row = 0  # of the next piece's first event
        self._local = False
        self._last = {name: np.zeros(0, np.int64) for name in ("local_ts", "exch_ts")}

    def check(self, data: Events) -> None:
        """Refuse events that no later stage could use.

        Args:
            data: `EVENT_DTYPE`[n], the next ones.

        Raises:
            DataError: an unknown kind, a time that goes back, a price or quantity that is negative
                or not finite, a depth event without exactly one side; with the last piece also that
                no event of the file is for us. Afterwards the checker is of no more use.
        """
        ev = data["ev"]
        kind = ev & np.uint64(KIND_MASK)
        self._refuse(
            (kind >= 10) & (kind <= 13),
            "a market-by-order event (kind {ev}); tickrt reads price levels: convert the L2 feed",
            ev=kind,
        )
        self._refuse((kind < DEPTH) | (kind > BBO), "unknown event kind {ev}", ev=kind)
        local, exchange = (ev & np.uint64(LOCAL)) != 0, (ev & np.uint64(EXCH)) != 0
        self._local = self._local or bool(local.any())
        if not self._local and self._row + len(data) == self._count:
            raise no_local_events(self._where)
        self._refuse_backwards(data, "local_ts", local)
        self._refuse_backwards(data, "exch_ts", exchange)
        priced = kind != CLEAR
        for name in ("px", "qty"):
            value = data[name]
            bad = priced & ~((value >= 0) & (value < np.inf))
            self._refuse(bad, f"{name} is {{value}}; expected a finite number ≥ 0", value=value)
        side = (ev & np.uint64(BUY | SELL)) >> np.uint64(28)
        level = (kind == DEPTH) | (kind == SNAPSHOT)
        self._refuse(
            level & (side != 1) & (side != 2),
            "a depth event needs exactly one of the flags BUY (1 << 29) and SELL (1 << 28)",
        )
        self._row += len(data)

    def _such_rows(self, count: int, length: int) -> str:
        """How many rows are wrong; a piece says nothing of those after it."""
        whole = self._row == 0 and length == self._count
        return f"{count} such rows" if whole else f"{count} such rows among {length} looked at"

    def _refuse(self, bad: npt.NDArray[np.bool_], text: str, **columns: npt.NDArray[Any]) -> None:
        """DataError for the first row that is `bad`, with that row's columns in the text."""
        if bad.any():
            row = int(np.argmax(bad))
            values = {name: column[row] for name, column in columns.items()}
            raise DataError(
                f"{self._where}: row {self._row + row}: {text.format(**values)} "
                f"({self._such_rows(int(bad.sum()), len(bad))})"
            )

    def _refuse_backwards(self, data: Events, name: str, chosen: npt.NDArray[np.bool_]) -> None:
        """DataError for the first of the chosen events whose time is before the previous one's."""
        rows = np.flatnonzero(chosen)
        carried = self._last[name]
        times = np.concatenate([carried, data[name][rows]])
        back = np.flatnonzero(times[1:] < times[:-1])
        if len(back):
            row = self._row + int(rows[back[0] + 1 - len(carried)])
            raise DataError(
                f"{self._where}: row {row}: {name} goes back from {times[back[0]]} to "
                f"{times[back[0] + 1]} ({self._such_rows(len(back), len(data))}); sort the "
                "capture, or use hftbacktest.data.correct_event_order"
            )
        self._last[name] = times[-1:].copy()


def check_events(data: Events, where: str) -> None:
    """Refuse an array of events that no later stage could use.

    Args:
        data: `EVENT_DTYPE`[n].
        where: stands in front of every message, e.g. the file's name.

    Raises:
        DataError: no events, or what `EventChecker.check` refuses.
    """
    checker = EventChecker(where, len(data))
    try:
        for start in range(0, len(data), _PIECE):
            checker.check(data[start : start + _PIECE])
    except DataError:
        EventChecker(where, len(data)).check(data)  # which counts the wrong rows of all pieces
        raise


def no_local_events(where: str) -> DataError:
    """What is said of a file without an event that we received."""
    return DataError(f"{where}: no event carries the LOCAL flag (1 << 30): nothing to replay")


def local_rows(data: Events) -> Rows:
    """Where the LOCAL events are: those that we received."""
    return np.flatnonzero(data["ev"] & np.uint64(LOCAL))


def batch_ends(data: Events) -> Rows:
    """Where the LOCAL events are that end a batch."""
    flags = np.uint64(LOCAL | BATCH_END)
    return np.flatnonzero((data["ev"] & flags) == flags)


def has_marks(data: Events) -> bool:
    """Whether any LOCAL event ends a batch."""
    return len(batch_ends(data)) > 0


def mark_batches(data: Events) -> None:
    """Set `BATCH_END` in place where the file has none: on the last LOCAL event of each run with
    equal `local_ts` and `exch_ts`, which is how one message looks in hftbacktest's files."""
    if not has_marks(data):
        mark_runs(data)


def mark_runs(data: Events, *, last: bool = True) -> None:
    """Set `BATCH_END` in place on the last LOCAL event of each run.

    Args:
        data: `EVENT_DTYPE`[n] without marks.
        last: whether the last run ends in `data`; if not, its LOCAL events get no mark.
    """
    local = local_rows(data)
    received, sent = data["local_ts"][local], data["exch_ts"][local]
    ends = np.full(len(local), last)
    ends[:-1] = (received[1:] != received[:-1]) | (sent[1:] != sent[:-1])
    data["ev"][local[ends]] |= np.uint64(BATCH_END)


def completed(data: Events, latest: int) -> npt.NDArray[np.int64]:
    """int64[n]: for each event the `local_ts` at which its batch was complete; never goes back.

    Args:
        data: valid, marked events.
        latest: for the events after the last batch: the newest `local_ts` of a LOCAL event.
    """
    ends = batch_ends(data)
    times = np.append(data["local_ts"][ends], latest)
    batch = np.searchsorted(ends, np.arange(len(data)), side="left")
    return np.asarray(times[batch], np.int64)
