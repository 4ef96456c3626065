"""Event files: save, load as a whole, merge symbols.

An event file is an ``.npz`` with `data` (`EVENT_DTYPE`) and optionally `meta` (uint8, the bytes of
a JSON object: symbol, instrument, source, counts). hftbacktest reads it as it is; its own files,
with `data` only, and bare ``.npy`` arrays load here.

Entry points: `save_events`, `load_events`, `merge_events`. `event_stream` reads them in pieces.

What `load_events` returns is valid (`event_checks`), and its batches are marked.

Known limit: a file is held in memory as a whole, 64 bytes an event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tickrt.errors import ConfigError
from tickrt.files import replacing
from tickrt.market.event_checks import check_events, completed, local_rows, mark_batches
from tickrt.market.event_reader import EventReader
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import EVENT_DTYPE

__all__ = [
    "Described",
    "EventFile",
    "check_events",
    "instruments_of",
    "load_events",
    "mark_batches",
    "merge_events",
    "save_events",
]

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE


class Described(Protocol):
    """A file of events, loaded or to be streamed, that may say which contract it is of."""

    @property
    def instrument(self) -> Instrument | None:
        """The contract; None where the file names none."""
        ...

    @property
    def path(self) -> Path:
        """Where it is read from."""
        ...


@dataclass(frozen=True)
class EventFile:
    """A loaded event file.

        file = tr.load_events("btc.npz")
        file.instrument.tick_size, file.data["px"][:5]

    Attributes:
        data: `EVENT_DTYPE`[n], checked, batches marked.
        meta: what the file says of itself; empty for foreign files.
        instrument: the contract, from `meta` or by its symbol; None where the file names none.
        path: where it was read from.
    """

    data: Events
    meta: dict[str, Any]
    instrument: Instrument | None
    path: Path


def save_events(path: str | os.PathLike[str], events: Events, meta: dict[str, Any]) -> Path:
    """Write an event file; a reader sees the old file or the whole new one, never a part.

        events, meta = tr.simulate(seconds=10)
        tr.save_events("sim.npz", events, meta)

    Args:
        path: ends in ``.npz``; missing folders are made.
        events: `EVENT_DTYPE`[n].
        meta: JSON values; `instrument` as `Instrument.to_dict` gives it.

    Raises:
        ConfigError: wrong file name, array or `meta`.
        OSError: the file system refused.
    """
    target = Path(path)
    if target.suffix != ".npz":
        raise ConfigError(f"{target}: expected a file name that ends in .npz")
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise ConfigError(
            f"{target}: expected one-dimensional events of EVENT_DTYPE, "
            f"got {events.ndim} dimensions of {events.dtype}"
        )
    try:
        text = json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{target}: meta: expected JSON values: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        np.savez_compressed(file, data=events, meta=np.frombuffer(text.encode(), np.uint8))
    return target


def load_events(path: str | os.PathLike[str]) -> EventFile:
    """Read an event file (ours or hftbacktest's ``.npz``, or a bare ``.npy``), check and mark it.

        file = tr.load_events("btc.npz")
        len(file.data), file.instrument

    Raises:
        DataError: missing, truncated, of another format or dtype, without events, or an event that
            `check_events` refuses; the message names the file, the row and the remedy.
    """
    source = Path(path)
    with EventReader(source) as reader:
        data = reader.read(reader.count)
    check_events(data, str(source))
    mark_batches(data)
    return EventFile(data, reader.meta, reader.instrument, source)


def instruments_of(
    files: Sequence[Described], symbols: Sequence[str | None]
) -> tuple[Instrument, ...]:
    """The contract of each file; that of a file that names none (hftbacktest's own) by its symbol.

    Args:
        files: event files or streams, one per symbol.
        symbols: what is to be traded. One that no file names, and that is in `KNOWN`, is taken for
            the contract of the one file without a description.

    Raises:
        ConfigError: a file's contract is not known; the message says how to name it.
    """
    named = {file.instrument.symbol for file in files if file.instrument is not None}
    spare = list(dict.fromkeys(s for s in symbols if s is not None and s not in named))
    nameless = [file for file in files if file.instrument is None]
    if nameless and (len(nameless) > 1 or len(spare) != 1 or spare[0] not in KNOWN):
        raise ConfigError(
            f"{nameless[0].path}: the file does not say which instrument it is: name it with "
            f"--symbol, one of {', '.join(KNOWN)}; for several such files or another contract, "
            "store meta={'instrument': …} with tickrt.market.event_file.save_events"
        )
    return tuple(file.instrument or KNOWN[spare[0]] for file in files)


def merge_events(files: Sequence[EventFile]) -> Events:
    """One array of several symbols' events, in the order in which we received them.

    Batches stay whole and are ordered by the `local_ts` at which they were complete; at equal times
    the earlier file goes first. `ival` becomes the index of the event's file.

    Raises:
        ConfigError: no files.
    """
    if not files:
        raise ConfigError("merge_events: expected at least one event file, got none")
    parts = []
    for index, file in enumerate(files):
        part = file.data.copy()
        part["ival"] = index
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([_times(part) for part in parts]), kind="stable")
    merged: Events = np.concatenate(parts)[order]
    return merged


def _times(data: Events) -> npt.NDArray[np.int64]:
    """`completed` of a whole file."""
    return completed(data, int(data["local_ts"][local_rows(data)[-1]]))
