"""An append-only log whose records are chained by hashes.

Entry points: `AuditLog.append` under the owner's lock, `AuditLog.read` without one.

Invariants: a record's `hash` is SHA-256 over the previous record's hash and its own content, so
that no record can be changed, removed or put in between without the chain breaking behind it. A
record is there when its newline is. A torn last line (a crash while it was written) is no record:
readers pass over it, the next writer cuts it off.

Known limits: whoever can write the file can cut off its *end*, or rewrite it whole; keep the head's
hash (`tickrt registry history` prints it) elsewhere to find that out.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tickrt.errors import RegistryError
from tickrt.files import sync_folder

__all__ = ["GENESIS", "AuditLog", "Record"]

GENESIS = "0" * 64


@dataclass(frozen=True)
class Record:
    """One operation. `digests` are the bundles concerned; `time_ns` is Unix time."""

    sequence: int
    time_ns: int
    actor: str
    operation: str
    channel: str
    digests: tuple[str, ...]
    note: str
    previous: str
    hash: str

    def expected_hash(self) -> str:
        """SHA-256 of this record's canonical JSON without `hash` (it holds `previous`)."""
        content = asdict(self)
        del content["hash"]
        return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: dict[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


class AuditLog:
    """The log at `path`; it needs not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Every record, the chain verified.

        Raises:
            RegistryError: a record was changed, removed or added; names its line.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RegistryError(f"{self.path}: {error.strerror}") from None
        lines = data.split(b"\n")[:-1]  # what follows the last newline is not a record
        records: list[Record] = []
        previous = GENESIS
        for number, line in enumerate(lines, 1):
            record = self._parse(line, number)
            whole = record.hash == record.expected_hash()
            if not whole or record.previous != previous or record.sequence != number:
                raise RegistryError(
                    f"{self.path}: line {number}: the audit chain is broken: this record or the "
                    "one before it was changed or removed; restore the file from a backup"
                )
            records.append(record)
            previous = record.hash
        return records

    def _parse(self, line: bytes, number: int) -> Record:
        try:
            content = json.loads(line)
            return Record(**{**content, "digests": tuple(content["digests"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RegistryError(f"{self.path}: line {number}: not an audit record") from None

    def append(
        self, operation: str, digests: tuple[str, ...], channel: str = "", note: str = ""
    ) -> Record:
        """Add a record, durably. The caller holds the registry's lock.

        Raises:
            RegistryError: the chain is broken already, or the file cannot be written.
        """
        records = self.read()
        previous = records[-1].hash if records else GENESIS
        draft = Record(
            len(records) + 1,
            time.time_ns(),
            _actor(),
            operation,
            channel,
            digests,
            note,
            previous,
            "",
        )
        record = Record(**{**asdict(draft), "digests": digests, "hash": draft.expected_hash()})
        try:
            self._write(_canonical(asdict(record)) + b"\n")
        except OSError as error:
            raise RegistryError(f"{self.path}: {error.strerror}") from None
        return record

    def _write(self, line: bytes) -> None:
        fresh = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            whole = os.pread(handle, size, 0).rfind(b"\n") + 1
            if whole != size:
                os.ftruncate(handle, whole)  # a torn record of a crashed writer
            view, at = memoryview(line), whole
            while view:
                done = os.pwrite(handle, view, at)
                view, at = view[done:], at + done
            os.fsync(handle)
        finally:
            os.close(handle)
        if fresh:
            sync_folder(self.path.parent)
