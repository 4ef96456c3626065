"""Files and folders that are there whole or not at all, and the one reader of TOML.

Entry points: `replacing` (a file, as an open one), `write_file` (a file, from bytes), `new_folder`,
`sync_folder`; `read_toml`. What writes does so beside the target, flushes to the disk, renames, and
flushes the folder.

Invariants: whatever happens while it is written, a reader sees the old content or the new, never a
part; what is left over from a crash is hidden (`.tmp-…`) and harmless.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tickrt.errors import TickrtError

__all__ = ["TEMPORARY", "new_folder", "read_toml", "replacing", "sync_folder", "write_file"]

TEMPORARY = ".tmp-"


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    return path.parent / f"{TEMPORARY}{path.name}-{secrets.token_hex(6)}"


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """An open binary file that becomes `path`, atomically and durably, when the block ends.

    Args:
        path: an existing file is replaced; its folder must be there.
        mode: permissions, less the process's mask.

    Raises:
        OSError: as the file system gives it, with a name; then, as after any exception in the
            block, `path` is as it was.
    """
    temporary = _beside(path)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it refuses
        raise
    sync_folder(path.parent)


def write_file(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> None:
    """Write `chunks` to `path` as `replacing` does.

    Raises:
        OSError: as the file system gives it; then `path` is as it was.
    """
    with replacing(path, mode) as file:
        for chunk in chunks:
            file.write(chunk)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled that becomes `path` when the block ends; missing parents are made.

    Where `path` is a folder with content by then, another process was first: that one stays.

    Raises:
        OSError: as the file system gives it; then, as after any exception in the block, `path` is
            as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for item in temporary.iterdir():
            with item.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        try:
            os.rename(temporary, path)
        except OSError:
            if not (path.is_dir() and any(path.iterdir())):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


def read_toml(path: Path, refusal: type[TickrtError]) -> dict[str, Any]:
    """A TOML file as plain data.

    Args:
        refusal: what to raise.

    Raises:
        TickrtError: a `refusal` that names the file and, where it can be read but is not TOML, the
            line: ``session.toml: not a TOML file: Invalid value (at line 3, column 8)``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise refusal(f"{path}: cannot read it: {error.strerror or error}") from error
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refusal(f"{path}: not a TOML file: not UTF-8 (at line {line})") from error
    except tomllib.TOMLDecodeError as error:
        raise refusal(f"{path}: not a TOML file: {error}") from error
    except RecursionError as error:
        raise refusal(f"{path}: not a TOML file: its values are nested too deeply") from error
