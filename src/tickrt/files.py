"""Files that are there whole or not at all, whatever happens while they are written.

Entry points: `write_file` (temporary file, fsync, rename, fsync of the folder), `sync_folder`.

Invariants: a reader sees the old content or the new, never a part; a file left over from a crash is
hidden (`.tmp-…`) and harmless.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

__all__ = ["TEMPORARY", "sync_folder", "write_file"]

TEMPORARY = ".tmp-"


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> None:
    """Write `chunks` to `path` atomically and durably; an existing file is replaced.

    Raises:
        OSError: as the file system gives it; then `path` is as it was.
    """
    temporary = path.parent / f"{TEMPORARY}{path.name}-{secrets.token_hex(6)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)
