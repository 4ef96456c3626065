"""Event files: save, load and check, mark batches, merge symbols.

An event file is an ``.npz`` with `data` (`EVENT_DTYPE`) and optionally `meta` (uint8, the bytes of
a JSON object: symbol, instrument, source, counts). hftbacktest reads it as it is; its own files,
with `data` only, and bare ``.npy`` arrays load here.

Entry points: `save_events`, `load_events`, `check_events`, `merge_events`.

What `load_events` returns is valid: the times of LOCAL events and of EXCH events never go back,
prices and quantities are finite and not negative, a depth event has exactly one side, and batches
are marked. Rows are counted from 0.

Known limit: a file is held in memory as a whole, 64 bytes an event.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
from tickrt.errors import ConfigError, DataError
from tickrt.files import replacing
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import EVENT_DTYPE

__all__ = [
    "EventFile",
    "check_events",
    "instruments_of",
    "load_events",
    "mark_batches",
    "merge_events",
    "save_events",
]

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE
_UNREADABLE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class EventFile:
    """A loaded event file.

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

    Raises:
        DataError: missing, truncated, of another format or dtype, without events, or an event that
            `check_events` refuses; the message names the file, the row and the remedy.
    """
    source = Path(path)
    data, meta = _read(source)
    if data.dtype != EVENT_DTYPE:
        data = _converted(data, source)
    if data.ndim != 1:
        raise DataError(f"{source}: expected a one-dimensional array, got shape {data.shape}")
    check_events(data, str(source))
    mark_batches(data)
    return EventFile(data, meta, _instrument(meta, source), source)


def instruments_of(
    files: Sequence[EventFile], symbols: Sequence[str | None]
) -> tuple[Instrument, ...]:
    """The contract of each file; that of a file that names none (hftbacktest's own) by its symbol.

    Args:
        files: event files, one per symbol.
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


def check_events(data: Events, where: str) -> None:
    """Refuse events that no later stage could use.

    Args:
        data: `EVENT_DTYPE`[n].
        where: stands in front of every message, e.g. the file's name.

    Raises:
        DataError: no events, none for us, an unknown kind, a time that goes back, a price or
            quantity that is negative or not finite, a depth event without exactly one side.
    """
    if len(data) == 0:
        raise DataError(f"{where}: holds no events; convert or simulate it again")
    ev = data["ev"]
    kind = ev & np.uint64(KIND_MASK)
    _refuse(
        (kind >= 10) & (kind <= 13),
        where,
        "a market-by-order event (kind {ev}); tickrt reads price levels: convert the L2 feed",
        ev=kind,
    )
    _refuse((kind < DEPTH) | (kind > BBO), where, "unknown event kind {ev}", ev=kind)
    local, exchange = (ev & np.uint64(LOCAL)) != 0, (ev & np.uint64(EXCH)) != 0
    if not local.any():
        raise DataError(f"{where}: no event carries the LOCAL flag (1 << 30): nothing to replay")
    _refuse_backwards(data, "local_ts", local, where)
    _refuse_backwards(data, "exch_ts", exchange, where)
    priced = kind != CLEAR
    for name in ("px", "qty"):
        value = data[name]
        bad = priced & ~((value >= 0) & (value < np.inf))
        _refuse(bad, where, f"{name} is {{value}}; expected a finite number ≥ 0", value=value)
    side = (ev & np.uint64(BUY | SELL)) >> np.uint64(28)
    level = (kind == DEPTH) | (kind == SNAPSHOT)
    _refuse(
        level & (side != 1) & (side != 2),
        where,
        "a depth event needs exactly one of the flags BUY (1 << 29) and SELL (1 << 28)",
    )


def mark_batches(data: Events) -> None:
    """Set `BATCH_END` in place where the file has none: on the last LOCAL event of each run with
    equal `local_ts` and `exch_ts`, which is how one message looks in hftbacktest's files."""
    ev = data["ev"]
    local = np.flatnonzero(ev & np.uint64(LOCAL))
    if len(local) == 0 or (ev[local] & np.uint64(BATCH_END)).any():
        return
    received, sent = data["local_ts"][local], data["exch_ts"][local]
    last = np.ones(len(local), bool)
    last[:-1] = (received[1:] != received[:-1]) | (sent[1:] != sent[:-1])
    ev[local[last]] |= np.uint64(BATCH_END)


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
    order = np.argsort(np.concatenate([_completed(part) for part in parts]), kind="stable")
    merged: Events = np.concatenate(parts)[order]
    return merged


def _completed(data: Events) -> npt.NDArray[np.int64]:
    """int64[n]: for each event the `local_ts` at which its batch was complete; never goes back."""
    local = (data["ev"] & np.uint64(LOCAL)) != 0
    ends = np.flatnonzero(local & ((data["ev"] & np.uint64(BATCH_END)) != 0))
    latest = int(data["local_ts"][local].max())
    times = np.append(data["local_ts"][ends], latest)  # the last for events after the last batch
    batch: npt.NDArray[np.int64] = np.searchsorted(ends, np.arange(len(data)), side="left")
    return np.asarray(times[batch], np.int64)


def _read(source: Path) -> tuple[Events, dict[str, Any]]:
    """The arrays of a file, whatever they are; DataError where it cannot be read."""
    try:
        with source.open("rb") as file:
            return _arrays(file, source)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{source}: cannot be read ({error.strerror}); make an event file with "
                "`tickrt data convert` or `tickrt data simulate`"
            ) from error
        raise DataError(
            f"{source}: damaged or truncated ({error}); copy, convert or simulate it again"
        ) from error


def _arrays(file: IO[bytes], source: Path) -> tuple[Events, dict[str, Any]]:
    """`data` and `meta` of an open file."""
    magic = file.read(6)
    file.seek(0)
    if not magic:
        raise DataError(f"{source}: the file is empty; convert or simulate it again")
    if magic[:2] != b"PK" and magic != b"\x93NUMPY":
        raise DataError(
            f"{source}: neither .npz nor .npy; raw captures become event files with "
            "`tickrt data convert`"
        )
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded, {}
    if "data" not in loaded.files:
        names = ", ".join(loaded.files) or "none"
        raise DataError(f"{source}: expected an array named 'data'; it has: {names}")
    meta = loaded["meta"].tobytes() if "meta" in loaded.files else b"{}"
    return loaded["data"], _parsed(meta, source)


def _parsed(text: bytes, source: Path) -> dict[str, Any]:
    """The JSON object in `meta`."""
    try:
        meta = json.loads(text)
    except ValueError as error:
        raise DataError(f"{source}: 'meta' is not JSON ({error}); convert it again") from error
    if not isinstance(meta, dict):
        raise DataError(f"{source}: 'meta' is {type(meta).__name__}; expected a JSON object")
    return meta


def _instrument(meta: dict[str, Any], source: Path) -> Instrument | None:
    """The contract that `meta` describes, or names."""
    values = meta.get("instrument")
    if values is None:
        return KNOWN.get(str(meta.get("symbol")))
    if not isinstance(values, dict):
        raise DataError(f"{source}: meta.instrument: expected an object, got {values!r}")
    try:
        return Instrument.from_dict(values)
    except ConfigError as error:
        raise DataError(f"{source}: meta.{error}") from error


def _converted(data: Events, source: Path) -> Events:
    """`data` as EVENT_DTYPE where only its layout in memory differs; else DataError."""
    names = EVENT_DTYPE.names or ()
    if data.dtype.names == names and all(data.dtype[n] == EVENT_DTYPE[n] for n in names):
        return data.astype(EVENT_DTYPE)
    hint = ""
    if data.ndim == 2 and data.dtype.names is None:
        hint = "; hftbacktest 1.x files are migrated with hftbacktest.data.utils.migration2"
    raise DataError(
        f"{source}: expected events with the fields {EVENT_DTYPE.descr}, "
        f"got {data.dtype.descr if data.dtype.names else data.dtype}{hint}"
    )


def _refuse(bad: npt.NDArray[np.bool_], where: str, text: str, **columns: npt.NDArray[Any]) -> None:
    """DataError for the first row that is `bad`, with that row's columns in the text."""
    if bad.any():
        row = int(np.argmax(bad))
        values = {name: column[row] for name, column in columns.items()}
        raise DataError(f"{where}: row {row}: {text.format(**values)} ({int(bad.sum())} such rows)")


def _refuse_backwards(data: Events, name: str, chosen: npt.NDArray[np.bool_], where: str) -> None:
    """DataError for the first of the chosen events whose time is before the previous one's."""
    rows = np.flatnonzero(chosen)
    times = data[name][rows]
    back = np.flatnonzero(times[1:] < times[:-1])
    if len(back):
        row, before = int(rows[back[0] + 1]), int(times[back[0]])
        raise DataError(
            f"{where}: row {row}: {name} goes back from {before} to {int(data[name][row])} "
            f"({len(back)} such rows); sort the capture, or use "
            "hftbacktest.data.correct_event_order"
        )
