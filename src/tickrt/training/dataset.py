"""From an event file to training data: rows, labels, a split by time, normalisation, mirroring.

*Sample*: a row whose window of T rows is complete and whose label is known; it is named by the
row's index. The label compares the mid price `horizon_ns` after the row (the last one known
at that time) with the mid price at the row: 0 down, 1 flat (exactly equal), 2 up.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import BATCH_END
from tickrt.errors import DataError, raise_code
from tickrt.feature.spec import FeatureSpec
from tickrt.feature.streams import new_streams
from tickrt.market.book import new_book
from tickrt.market.event_file import load_events
from tickrt.training.kernels import collect

__all__ = [
    "CLASSES",
    "Mirror",
    "Split",
    "TrainingRows",
    "load_session",
    "mirror_of",
    "split_by_time",
]

CLASSES = ("down", "flat", "up")
F4 = NDArray[np.float32]
I8 = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingRows:
    """One symbol's rows in time order, before normalisation.

    Attributes:
        symbol, path: what and from where.
        rows: float32 [N, F]; times: int64 [N] ns; mids: float64 [N] ticks; imbalances: float64 [N].
        volumes: float64 [N], traded since the row before.
        labels: int64 [N], 0…2, −1 where the horizon lies behind the end of the file.
        complete: bool [N], the row's window of T rows has no reset in it.
    """

    symbol: str
    path: Path
    rows: F4
    times: I8
    mids: NDArray[np.float64]
    imbalances: NDArray[np.float64]
    volumes: NDArray[np.float64]
    labels: I8
    complete: NDArray[np.bool_]

    @property
    def samples(self) -> I8:
        """Indices of rows that have a complete window and a label."""
        return np.flatnonzero(self.complete & (self.labels >= 0))


def plain(spec: FeatureSpec) -> FeatureSpec:
    """The spec without normalisation and clip."""
    zero, one = (0.0,) * spec.width, (1.0,) * spec.width
    return dataclasses.replace(spec, mean=zero, std=one, clip=float("inf"))


def load_session(path: Path, spec: FeatureSpec, horizon_ns: int) -> TrainingRows:
    """Replay an event file of one symbol into rows and labels.

    Raises:
        DataError: the file does not say its instrument, or has fewer rows than a window.
        BookError: the book refused an event, or was crossed after a batch.
    """
    file = load_events(path)
    if file.instrument is None:
        raise DataError(f"{path}: it does not say its instrument; convert it with `tickrt data`")
    tick = file.instrument.tick_size
    most = int(np.count_nonzero(file.data["ev"] & np.uint64(BATCH_END)))
    rows, times = np.zeros((most, spec.width), np.float32), np.zeros(most, np.int64)
    mids, imbalances, volumes = np.zeros(most), np.zeros(most), np.zeros(most)
    counts = np.zeros(most, np.int64)
    streams = new_streams([(0, plain(spec), tick)])
    book = new_book([tick])
    n = collect(file.data, book, streams, rows, times, mids, imbalances, volumes, counts)
    raise_code(n, str(path))
    if n <= spec.window:
        raise DataError(f"{path}: {n} rows, expected more than a window of {spec.window}")
    return TrainingRows(
        symbol=file.instrument.symbol,
        path=Path(path),
        rows=rows[:n],
        times=times[:n],
        mids=mids[:n],
        imbalances=imbalances[:n],
        volumes=volumes[:n],
        labels=make_labels(times[:n], mids[:n], horizon_ns),
        complete=counts[:n] >= spec.window,
    )


def make_labels(times: I8, mids: NDArray[np.float64], horizon_ns: int) -> I8:
    """0 down, 1 flat, 2 up over the horizon; −1 where the file ends before it."""
    later = np.searchsorted(times, times + horizon_ns, side="right") - 1
    labels = 1 + np.sign(mids[later] - mids).astype(np.int64)
    labels[times + horizon_ns > times[-1]] = -1
    return labels


@dataclass(frozen=True)
class Split:
    """Samples (row indices) of the three parts, and the times in ns where the parts were cut."""

    train: I8
    validation: I8
    test: I8
    cuts_ns: tuple[int, int]


def split_by_time(session: TrainingRows, window: int, horizon_ns: int) -> Split:
    """60/20/20 of the session's time, with a gap of at least one window plus the horizon.

    A part's last label is known when the part ends; the next part's first window begins a horizon
    after that. So no row and no price is used by two parts.
    """
    times, samples = session.times, session.samples
    begin, length = int(times[0]), int(times[-1] - times[0])
    cuts = (begin + length * 6 // 10, begin + length * 8 // 10)
    at, first_row = times[samples], np.searchsorted(times, [c + horizon_ns for c in cuts])
    later = [samples >= row + window - 1 for row in first_row]
    return Split(
        train=samples[at + horizon_ns <= cuts[0]],
        validation=samples[later[0] & (at + horizon_ns <= cuts[1])],
        test=samples[later[1]],
        cuts_ns=cuts,
    )


@dataclass(frozen=True)
class Mirror:
    """Exchange of bid and ask: column `i` of the mirrored row is ``sign[i] · row[source[i]]``.

    A mirrored window has the opposite label.
    """

    source: I8
    sign: F4

    def rows(self, rows: Any) -> Any:
        """Mirror rows [..., F] (numpy)."""
        return rows[..., self.source] * self.sign


_ODD = ("volume_signed", "order_flow_", "imbalance_", "microprice", "return_")


def mirror_of(spec: FeatureSpec) -> Mirror | None:
    """The spec's mirror; None if it has user columns, whose symmetry is not known."""
    if any(column.kind == "user" for column in spec.columns):
        return None
    place = {name: i for i, name in enumerate(spec.names)}
    swap = {"bid_": "ask_", "ask_": "bid_"}
    names = [swap.get(n[:4], n[:4]) + n[4:] for n in spec.names]
    return Mirror(
        source=np.array([place[n] for n in names], np.int64),
        sign=np.array([-1.0 if n.startswith(_ODD) else 1.0 for n in names], np.float32),
    )


def normalisation(rows: F4, mirror: Mirror | None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per column of `rows` (and of their mirror image).

    A column that hardly varies keeps std 1. Rounded to 7 digits, so that a file holds them exactly.
    """
    mean, square = rows.mean(0, np.float64), np.square(rows, dtype=np.float64).mean(0)
    if mirror is not None:
        mean = (mean + mirror.rows(mean)) / 2
        square = (square + square[mirror.source]) / 2
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    std[std < 1e-6] = 1.0
    return [float(f"{x:.7g}") for x in mean], [float(f"{x:.7g}") for x in std]
