"""From an event file to training data: rows, labels, a split by time.

*Sample*: a row whose window of T rows is complete and whose label is known; it is named by the
row's index. Rows and labels are those of `feature.rows`, before normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tickrt.feature.normalise import plain
from tickrt.feature.rows import make_labels, replay_rows, source_of
from tickrt.feature.spec import FeatureSpec

__all__ = ["CLASSES", "Split", "TrainingRows", "load_session", "split_by_time"]

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


def load_session(path: Path, spec: FeatureSpec, horizon_ns: int) -> TrainingRows:
    """Replay an event file of one symbol into rows and labels.

    Raises:
        DataError: the file does not say its instrument, or has fewer rows than a window.
        BookError: the book refused an event, or was crossed after a batch.
    """
    source = source_of(path)
    made = replay_rows(source, plain(spec))
    return TrainingRows(
        symbol=source.instrument.symbol,
        path=Path(path),
        rows=made.rows,
        times=made.times_ns,
        mids=made.mids,
        imbalances=made.imbalances,
        volumes=made.volumes,
        labels=make_labels(made.times_ns, made.mids, horizon_ns).astype(np.int64),
        complete=made.counts >= spec.window,
    )


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
