"""From events to rows: what a model sees, with times, mid prices and labels.

Entry points: ``features(events, spec)`` → `Features`; for other parts of the house `source_of`,
`replay_rows`, `make_labels`.

Invariant: rows are made by the book and the feature kernels of the loop, so they are, bit for bit,
what the loop gives to an engine. A label compares the mid price `horizon_ns` after the row (the
last one known at that time) with the mid price at the row.

Known limits: events of one symbol; all rows are in memory, 4·F bytes each. A user's column that
raises or is not finite stops the replay; the loop would go on with a new window.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import BATCH_END
from tickrt.errors import ConfigError, DataError, raise_code
from tickrt.feature.row_kernels import collect
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.feature.streams import new_streams
from tickrt.market.book import new_book
from tickrt.market.event_file import EventFile, check_events, load_events, mark_batches
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import EVENT_DTYPE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from tickrt.feature.torch_windows import Windows

__all__ = ["EventSource", "Features", "features", "make_labels", "replay_rows", "source_of"]

_LONGEST_NS = 10**18  # of a label: thirty years; a time and this fit an int64

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

EventSource: TypeAlias = "EventFile | str | os.PathLike[str] | NDArray[np.void]"


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """The rows of one symbol in time order; `features` makes them.

        data = tr.features("btc.npz", "light", horizon_ns=100_000_000)
        data.to_pandas()["spread"].describe()

    Attributes:
        rows: float32 [n, F], normalised by `spec`: what the loop gives to a model.
        times_ns: int64 [n], local time of the batch that completed the row.
        mid: float64 [n], mid price in quote currency.
        since_reset: int64 [n], rows since the last reset (a gap, a cleared book), itself included.
        labels: int8 [n]: 0 down, 1 flat, 2 up over the horizon, −1 where the events end before it;
            None without a horizon.
        spec: what made the rows.
        symbol: whose rows they are.
    """

    rows: F4
    times_ns: I8
    mid: F8
    since_reset: I8
    labels: NDArray[np.int8] | None
    spec: FeatureSpec
    symbol: str

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        n, width = self.rows.shape
        return f"Features({self.symbol}: {n} rows × {width} of spec {self.spec.name!r})"

    @property
    def complete(self) -> NDArray[np.bool_]:
        """bool [n]: the row's window of T rows has no reset in it."""
        return self.since_reset >= self.spec.window

    def samples(self, window: int | None = None) -> I8:
        """Row numbers of the samples: their window is whole and, with a horizon, their label known.

        Args:
            window: T; None: the spec's.
        """
        chosen = self.since_reset >= (self.spec.window if window is None else window)
        if self.labels is not None:
            chosen &= self.labels >= 0
        return np.flatnonzero(chosen)

    def to_arrow(self) -> pa.Table:
        """A table with ``time`` (UTC, in ns, as in `Session.tables`), ``mid``, ``complete``,
        ``label`` where there are labels, and one float32 column per number of a row, named as in
        the spec. Its metadata holds the spec's name and hash, and the symbol.

            table = tr.features("btc.npz", "light").to_arrow()
            polars.from_arrow(table)
        """
        import pyarrow as pa

        columns: dict[str, Any] = {
            "time": self.times_ns.astype("datetime64[ns]"),
            "mid": self.mid,
            "complete": self.complete,
        }
        if self.labels is not None:
            columns["label"] = self.labels
        taken = [name for name in self.spec.names if name in columns]
        if taken:
            raise ConfigError(f"spec {self.spec.name}: rename its column {taken[0]!r} for a table")
        columns |= {name: self.rows[:, i] for i, name in enumerate(self.spec.names)}
        said = {
            "tickrt.feature_hash": self.spec.hash,
            "tickrt.spec": self.spec.name,
            "tickrt.symbol": self.symbol,
        }
        return pa.table(columns, metadata=said)

    def to_pandas(self) -> pd.DataFrame:
        """`to_arrow` as a data frame whose index is ``time``.

            frame = tr.features("btc.npz", "light").to_pandas()
            frame["mid"].resample("1s").last()

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401 - only to say what is missing
        except ImportError as error:
            raise ConfigError(
                f"to_pandas needs pandas: pip install 'tickrt[pandas]' ({error})"
            ) from error
        return self.to_arrow().to_pandas().set_index("time")

    def torch_dataset(self, window: int | None = None) -> Windows:
        """The samples as a `torch.utils.data.Dataset`: (rows float32 [T, F], label int64), or the
        rows alone where there are no labels. Windows are views of `rows`: nothing is copied before
        a batch is made of them.

            data = tr.features("btc.npz", "light", horizon_ns=100_000_000)
            loader = torch.utils.data.DataLoader(data.torch_dataset(), 256, shuffle=True)

        Args:
            window: T; None: the spec's, the only one that a model for this spec can have.

        Raises:
            ConfigError: torch is not installed, or `window` is not positive.
        """
        try:
            from tickrt.feature.torch_windows import Windows
        except ImportError as error:
            raise ConfigError(
                f"torch_dataset needs torch: pip install 'tickrt[train]' ({error})"
            ) from error
        size = self.spec.window if window is None else window
        if size < 1:
            raise ConfigError(f"torch_dataset: window: expected 1 or more rows, got {window!r}")
        return Windows(self.rows, self.samples(size), self.labels, size)


class EventArray(NamedTuple):
    """Events of one symbol, ready to be replayed."""

    data: NDArray[np.void]  # EVENT_DTYPE, checked, batches marked
    instrument: Instrument
    where: str  # for messages


class RowArrays(NamedTuple):
    """What a replay gives, n rows."""

    rows: F4  # [n, F]
    times_ns: I8
    mids: F8  # in ticks
    imbalances: F8  # (bid − ask) / (bid + ask) of the best quantities
    volumes: F8  # traded since the row before
    counts: I8  # rows since the last reset, the row itself included


def source_of(events: EventSource, instrument: Instrument | str | None = None) -> EventArray:
    """The events of one symbol, with the contract that they are of.

    Args:
        events: an event file, its path, or `EVENT_DTYPE`[n].
        instrument: the contract, or the symbol of a known one, where the events name none.

    Raises:
        ConfigError: no instrument is known.
        DataError: the file or the array cannot be used.
    """
    if isinstance(events, np.ndarray):
        where, data, named = "events", _checked(events), None
    else:
        file = events if isinstance(events, EventFile) else load_events(events)
        where, data, named = str(file.path), file.data, file.instrument
    if isinstance(instrument, str):
        if instrument not in KNOWN:
            raise ConfigError(
                f"instrument {instrument!r}: not known; known are {', '.join(KNOWN)}: "
                "describe it with an Instrument"
            )
        instrument = KNOWN[instrument]
    contract = instrument or named
    if contract is None:
        raise DataError(
            f"{where}: it does not say its instrument; give one (instrument=…), or convert it with "
            "`tickrt data`"
        )
    return EventArray(data, contract, where)


def _checked(events: NDArray[np.void]) -> NDArray[np.void]:
    """A caller's array: checked, batches marked, of the one type that is compiled for."""
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise DataError(
            f"events: expected a one-dimensional array of EVENT_DTYPE, got {events.ndim} dimensions"
            f" of {events.dtype}: `load_events` reads other layouts"
        )
    check_events(events, "events")
    owned: NDArray[np.void] = np.array(events, EVENT_DTYPE, order="C")
    mark_batches(owned)
    return owned


def replay_rows(source: EventArray, spec: FeatureSpec) -> RowArrays:
    """Replay events through a book and one feature stream.

    Raises:
        DataError: fewer rows than a window.
        BookError: the book refused an event, or was crossed after a batch.
        SpecError: a user's column cannot be used, raised, or was not finite.
    """
    data, tick = source.data, source.instrument.tick_size
    most = int(np.count_nonzero(data["ev"] & np.uint64(BATCH_END)))
    made = RowArrays(
        rows=np.zeros((most, spec.width), np.float32),
        times_ns=np.zeros(most, np.int64),
        mids=np.zeros(most),
        imbalances=np.zeros(most),
        volumes=np.zeros(most),
        counts=np.zeros(most, np.int64),
    )
    streams = new_streams([(0, spec, tick)])
    n = int(collect(data, new_book([tick]), streams, *made))
    raise_code(n, source.where)
    if n <= spec.window:
        raise DataError(f"{source.where}: {n} rows, expected more than a window of {spec.window}")
    return RowArrays._make(array[:n] for array in made)


def make_labels(times_ns: I8, mids: F8, horizon_ns: int) -> NDArray[np.int8]:
    """0 down, 1 flat (exactly equal), 2 up over the horizon; −1 where the rows end before it."""
    later = np.searchsorted(times_ns, times_ns + horizon_ns, side="right") - 1
    labels = 1 + np.sign(mids[later] - mids).astype(np.int8)
    labels[times_ns + horizon_ns > times_ns[-1]] = -1
    return labels


def features(
    events: EventSource,
    spec: FeatureSpec | str | os.PathLike[str],
    *,
    horizon_ns: int | None = None,
    instrument: Instrument | str | None = None,
) -> Features:
    """The rows that a model sees on these events.

        data = tr.features("btc.npz", "light", horizon_ns=100_000_000)
        data.rows.shape, data.labels[:5]

    Args:
        events: an `EventFile`, the path of one, or an `EVENT_DTYPE` array, of one symbol.
        spec: a `FeatureSpec`, a shipped one's name, or the path of a TOML file.
        horizon_ns: how far ahead the labels look, in ns; None: no labels.
        instrument: the contract, or the symbol of a known one, where the events name none (an
            array, or a foreign file).

    Raises:
        ConfigError: the horizon is not a number of ns, or the instrument is not known.
        DataError: the events cannot be used, name no instrument, or make fewer rows than a window.
        BookError: the book refused an event, or was crossed after a batch.
        SpecError: the spec cannot be read, or a user's column cannot be used.
    """
    if horizon_ns is not None and not (
        isinstance(horizon_ns, int | np.integer) and 0 < horizon_ns <= _LONGEST_NS
    ):
        raise ConfigError(
            f"features: horizon_ns: expected whole ns, 1 … {_LONGEST_NS:.0e}, got {horizon_ns!r}"
        )
    found = spec if isinstance(spec, FeatureSpec) else load_spec(Path(spec))
    source = source_of(events, instrument)
    made = replay_rows(source, found)
    labels = None
    if horizon_ns is not None:
        labels = make_labels(made.times_ns, made.mids, horizon_ns)
    return Features(
        rows=made.rows,
        times_ns=made.times_ns,
        mid=made.mids * source.instrument.tick_size,
        since_reset=made.counts,
        labels=labels,
        spec=found,
        symbol=source.instrument.symbol,
    )
