"""Lines of recorded captures, gzip or plain text, several files as one session, with progress.

`Capture` iterates over raw lines and knows at each moment which file and line it is at, so that
whoever decodes them can say where an error is. `detect` tells what a file holds from its beginning.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tickrt.errors import DataError

__all__ = ["Capture", "Progress", "detect"]

Progress = Callable[[int, int], None]

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 15  # bytes on disk read at a time
_LINE_MAX = 1 << 26  # bytes; a full-depth snapshot is below 2 MB


class Capture:
    """The lines of several files, in the order given.

    Args:
        paths: gzip or plain text files; which one is seen from the content.
        progress: called now and then with the bytes read so far and in all, as they lie on disk.
        allow_truncated: a file that breaks off ends there, instead of raising; it is named in
            `truncated`.

    Attributes:
        path: the file at hand.
        line: the number of the line at hand, from 1.
        truncated: files that broke off.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        progress: Progress | None = None,
        allow_truncated: bool = False,
    ) -> None:
        self.paths = list(paths)
        self.path = self.paths[0]
        self.line = 0
        self.truncated: list[Path] = []
        self._progress = progress
        self.allow_truncated = allow_truncated
        self._total = sum(_size(path) for path in self.paths)

    @property
    def where(self) -> str:
        """``file:line`` of the line at hand."""
        return f"{self.path.name}:{self.line}"

    def __iter__(self) -> Iterator[bytes]:
        """Lines without their line ends; blank ones are left out.

        Raises:
            DataError: a file is empty, truncated or unreadable.
        """
        done = 0
        for path in self.paths:
            self.path, self.line = path, 0
            yield from self._lines(path, done)
            done += _size(path)
            self._report(done)

    def _lines(self, path: Path, done: int) -> Iterator[bytes]:
        rest = b""
        with path.open("rb") as file:
            chunks = _chunks(file)
            while True:
                try:
                    chunk = next(chunks, None)
                except (OSError, EOFError, zlib.error) as error:
                    if not self.allow_truncated:
                        raise self._broken_off(error) from None
                    self.truncated.append(path)
                    return
                if chunk is None:
                    break
                self._report(done + file.tell())
                *lines, rest = (rest + chunk).split(b"\n")
                yield from self._numbered(lines)
                if len(rest) > _LINE_MAX:
                    raise DataError(f"{path.name}:{self.line + 1}: a line of {len(rest):,} bytes")
        yield from self._numbered([rest] if rest else [])
        if self.line == 0:
            raise DataError(f"{path.name}: empty: record it again, or leave it out")

    def _numbered(self, lines: list[bytes]) -> Iterator[bytes]:
        for raw in lines:
            self.line += 1
            raw = raw.strip()
            if raw:
                yield raw

    def _broken_off(self, error: BaseException) -> DataError:
        return DataError(
            f"{self.path.name}:{self.line}: the gzip data breaks off or is damaged after this line "
            f"({error}): copy the file again, or use --on-gap resync to take what is there"
        )

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)


def detect(path: Path) -> str:
    """What a file holds: ``binance``, ``binance_snapshot``, ``gdax`` or ``gdax_snapshot``.

    Raises:
        DataError: it cannot be read, is empty, or is none of these.
    """
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if head.startswith(_GZIP):
            head = zlib.decompressobj(wbits=31).decompress(head, 4096)
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}: copy the file again") from None
    lines = head.split(None, 1)
    if not lines:
        raise DataError(f"{path.name}: empty: record it again, or leave it out")
    if lines[0].startswith(b"side,price,size"):
        return "gdax" if lines[0] == b"side,price,size,time" else "gdax_snapshot"
    if lines[0].isdigit() and len(lines) == 2 and lines[1].startswith(b"{"):
        return "binance"
    if head.lstrip().startswith(b"{") and b'"lastUpdateId"' in head:
        return "binance_snapshot"
    if head.startswith((b"PK\x03\x04", b"\x93NUMPY")):
        raise DataError(f"{path.name}: this is an event file already: use it as it is")
    raise DataError(
        f"{path.name}: unknown content, begins with {head[:60]!r}: expected lines of "
        "'<receive time in ns> <Binance message>' or CSV with side,price,size,time"
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The text in an open file, through gzip where it begins like that, piece by piece.

    Not `gzip.open`: that gives up what it has already unpacked when the data breaks off.
    """
    data = file.read(_CHUNK)
    if not data.startswith(_GZIP):
        while data:
            yield data
            data = file.read(_CHUNK)
        return
    gunzip = zlib.decompressobj(wbits=31)
    while data:
        yield gunzip.decompress(data)
        data = gunzip.unused_data.lstrip(b"\0") if gunzip.eof else b""
        data = data or file.read(_CHUNK)
        if gunzip.eof and data:  # files that were put one after the other
            gunzip = zlib.decompressobj(wbits=31)
    if not gunzip.eof:
        raise EOFError("it ends before its end mark")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
