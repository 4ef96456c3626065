"""An event file opened for reading: what it says of itself, and its events from first to last.

Entry point: `EventReader`. It reads the ``.npz`` of `event_file.save_events` and of hftbacktest,
compressed or stored, and bare ``.npy``; only what is asked for is held in memory.

Limits: forward only; events are not checked (`event_checks`).
"""

from __future__ import annotations

import io
import json
import os
import tokenize
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from tickrt.errors import ConfigError, DataError
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import EVENT_DTYPE

__all__ = ["EventReader"]

Events = npt.NDArray[Any]  # structured, EVENT_DTYPE
# What zipfile and NumPy raise on damaged bytes; the syntax is that of an array's header.
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_PIECE = 1 << 18  # bytes at once: zipfile holds about as much again


class EventReader:
    """Opens `source`; a context manager.

    Attributes:
        source: the file.
        identity: tells this file from another of the same name.
        meta: what the file says of itself; empty for foreign files.
        instrument: the contract, from `meta` or by its symbol; None where the file names none.
        count: events in all.

    Raises:
        DataError: missing, damaged, or of another format or dtype; the message names the file and
            the remedy.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        with ExitStack() as stack:
            try:
                file = stack.enter_context(source.open("rb"))
                status = os.fstat(file.fileno())
                self._events, size, text = _members(file, source, stack)
                self._dtype, shape = _header(self._events)
            except _UNREADABLE as error:
                raise _unreadable(source, error) from error
            _check_layout(self._dtype, shape, source)
            self.count = shape[0]
            room = (size - self._events.tell()) // self._dtype.itemsize
            if not 0 <= self.count <= room:  # before so many are made room for
                raise _unreadable(source, _ends_after(room, self.count))
            self.meta = _parsed(text, source)
            self.instrument = _instrument(self.meta, source)
            self._close = stack.pop_all().close
        self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        self._row = 0

    def read(self, limit: int) -> Events:
        """The next events, at most `limit`: a new `EVENT_DTYPE`[n]; n = 0 at the end.

        Raises:
            DataError: the file is damaged or truncated here; the message names the rows.
        """
        end = min(self._row + limit, self.count)
        raw = np.empty(end - self._row, self._dtype)
        try:
            self._fill(raw)
            if end == self.count:
                self._events.read(1)  # past the end: here zipfile compares the checksum
        except _UNREADABLE as error:
            # A checksum is wrong: it is that of all events.
            first = 0 if isinstance(error, zipfile.BadZipFile) else self._row
            rows = f" between rows {first} and {end - 1}"
            raise _unreadable(self.source, error, rows) from error
        self._row = end
        return raw if self._dtype == EVENT_DTYPE else raw.astype(EVENT_DTYPE)

    def _fill(self, raw: Events) -> None:
        target = raw.view(np.uint8).data
        done = 0
        while done < len(target):
            got = self._events.readinto(target[done : done + _PIECE])
            if not got:
                raise _ends_after(self._row + done // raw.itemsize, self.count)
            done += got

    def __enter__(self) -> EventReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def _ends_after(row: int, count: int) -> EOFError:
    return EOFError(f"it ends after {row} of {count} events")


def _unreadable(source: Path, error: BaseException, rows: str = "") -> DataError:
    """What is said of a file that cannot be read; `rows`: where it is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        return DataError(
            f"{source}: cannot be read ({error.strerror}); make an event file with "
            "`tickrt data convert` or `tickrt data simulate`"
        )
    return DataError(
        f"{source}: damaged or truncated{rows} ({error}); copy, convert or simulate it again"
    )


def _members(
    file: io.BufferedReader, source: Path, stack: ExitStack
) -> tuple[io.BufferedIOBase, int, bytes]:
    """Where the array `data` begins, its size in bytes with its header, and the bytes of `meta`."""
    magic = file.read(6)
    file.seek(0)
    if not magic:
        raise DataError(f"{source}: the file is empty; convert or simulate it again")
    if magic == npy.MAGIC_PREFIX:
        return file, os.fstat(file.fileno()).st_size, b"{}"
    if magic[:2] != b"PK":
        raise DataError(
            f"{source}: neither .npz nor .npy; raw captures become event files with "
            "`tickrt data convert`"
        )
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if "data" not in members:
        names = ", ".join(members) or "none"
        raise DataError(f"{source}: expected an array named 'data'; it has: {names}")
    text = b"{}"
    if "meta" in members:
        with archive.open(members["meta"]) as described:
            text = npy.read_array(described, allow_pickle=False).tobytes()
    member = cast(zipfile.ZipExtFile, archive.open(members["data"]))
    return stack.enter_context(member), archive.getinfo(members["data"]).file_size, text


def _header(file: io.BufferedIOBase) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape of the array that begins here; what follows are its bytes."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    else:  # version 3 differs in the encoding of names that are not ASCII
        shape, _, dtype = npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    return dtype, shape


def _check_layout(dtype: np.dtype[Any], shape: tuple[int, ...], source: Path) -> None:
    """DataError unless there is one dimension of events, in whatever layout in memory."""
    names = EVENT_DTYPE.names or ()
    if dtype.names != names or any(dtype[name] != EVENT_DTYPE[name] for name in names):
        hint = ""
        if len(shape) == 2 and dtype.names is None:
            hint = "; hftbacktest 1.x files are migrated with hftbacktest.data.utils.migration2"
        raise DataError(
            f"{source}: expected events with the fields {EVENT_DTYPE.descr}, "
            f"got {dtype.descr if dtype.names else dtype}{hint}"
        )
    if len(shape) != 1:
        raise DataError(f"{source}: expected a one-dimensional array, got shape {shape}")


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
