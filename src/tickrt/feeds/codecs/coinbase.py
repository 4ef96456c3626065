"""Coinbase (GDAX) level-2 CSV rows → events. No I/O, no clock.

Rows are ``side,price,size`` (snapshot) or ``side,price,size,time`` (updates; size 0 deletes a
level). The header line says which. The files have no sequence numbers and no receive times: rows
with the same exchange time (ms) are taken as one message, and a time that goes back is an error.

`GdaxCodec.decode` holds the snapshot back until the first update gives it a time, and a group of
rows until the next time begins; call `finish` after the last row.

Limit: without sequence numbers a gap cannot be seen, so there is no resync.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tickrt.compile.codes import BUY, CLEAR, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT
from tickrt.errors import DataError
from tickrt.feeds.codecs.buffer import EventBuffer

__all__ = ["GdaxCodec"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLAGS = {b"buy": BUY | EXCH | LOCAL, b"sell": SELL | EXCH | LOCAL}
_UNTIMED = [b"side", b"price", b"size"]
_TIMED = [*_UNTIMED, b"time"]

_Rows = list[tuple[int, float, float]]


class GdaxCodec:
    """Decodes the rows of one product: snapshot files first, then the updates.

    Attributes:
        updates: update rows so far.
        levels: snapshot rows so far.
    """

    def __init__(self) -> None:
        self.updates = 0
        self.levels = 0
        self._columns = 0
        self._snapshot: _Rows = []
        self._group: _Rows = []
        self._group_text = b""
        self._group_ns = 0
        self._group_local_ns = 0
        self._started = False

    def decode(self, raw: bytes, local_ns: int, out: EventBuffer) -> int:
        """Take one line.

        Args:
            raw: the line, without its line end.
            local_ns: when it was received, ns; below 0 where nobody recorded it: the exchange's
                time is used.
            out: where the events of completed groups are appended.

        Returns:
            How many events were appended: those of the group before, if this row begins a new one.

        Raises:
            DataError: the row is malformed, comes before a header, or its time goes back.
        """
        fields = raw.split(b",")
        if fields[0] == b"side":
            return self._on_header(fields)
        if len(fields) != self._columns:
            expected = f"{self._columns} columns" if self._columns else "a header line first"
            raise DataError(f"malformed row: expected {expected}, got {raw[:80]!r}")
        side = _FLAGS.get(fields[0])
        try:
            px, qty = float(fields[1]), float(fields[2])
        except ValueError:
            px = -1.0
        if side is None or not (0.0 < px < 1e15 and 0.0 <= qty < 1e18):
            raise DataError(f"malformed row: expected side,price,size…, got {raw[:80]!r}")
        if self._columns == 3:
            self.levels += 1
            self._snapshot.append((SNAPSHOT | side, px, qty))
            return 0
        self.updates += 1
        before = out.count
        if fields[3] != self._group_text:
            self._begin(fields[3], local_ns, out)
        self._group.append((DEPTH | side, px, qty))
        return out.count - before

    def finish(self, out: EventBuffer) -> int:
        """Append what is still held back; returns how many events.

        Raises:
            DataError: no snapshot or no update came.
        """
        if not self._started:
            what = "update" if self._snapshot else "snapshot"
            raise DataError(
                f"no {what} rows: give the two snapshot files and then the update files"
            )
        before = out.count
        self._flush(out)
        return out.count - before

    def _on_header(self, fields: list[bytes]) -> int:
        if fields not in (_UNTIMED, _TIMED):
            raise DataError(f"unknown columns {b','.join(fields)[:80]!r}: expected side,price,size")
        if len(fields) == 3 and self._started:
            raise DataError("a snapshot after updates: give the snapshot files first")
        self._columns = len(fields)
        return 0

    def _begin(self, text: bytes, local_ns: int, out: EventBuffer) -> None:
        """Close the group of rows before and begin the one at the time `text`."""
        exch_ns = _nanoseconds(text)
        local_ns = local_ns if local_ns >= 0 else exch_ns
        if exch_ns < self._group_ns or local_ns < self._group_local_ns:
            raise DataError(
                f"time goes back from {self._group_text.decode()} to {text.decode()}: "
                "give the files in the order of recording"
            )
        if self._started:
            self._flush(out)
        else:
            self._start(exch_ns, local_ns, out)
        self._group_text, self._group_ns, self._group_local_ns = text, exch_ns, local_ns

    def _start(self, exch_ns: int, local_ns: int, out: EventBuffer) -> None:
        if not self._snapshot:
            raise DataError("updates before a snapshot: give the snapshot files first")
        out.put(CLEAR | EXCH | LOCAL, exch_ns, local_ns, 0, (0.0,), (0.0,))
        _put(self._snapshot, exch_ns, local_ns, out)
        self._snapshot = []
        self._started = True

    def _flush(self, out: EventBuffer) -> None:
        if self._group:
            _put(self._group, self._group_ns, self._group_local_ns, out)
            self._group = []


def _put(rows: _Rows, exch_ns: int, local_ns: int, out: EventBuffer) -> None:
    """Append rows of mixed sides as one batch, in their order."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i][0] != rows[start][0]:
            _, px, qty = zip(*rows[start:i], strict=True)
            out.put(rows[start][0], exch_ns, local_ns, 0, px, qty)
            start = i
    out.end_batch()


def _nanoseconds(text: bytes) -> int:
    """ISO 8601 UTC time → ns since 1970; to the microsecond."""
    try:
        moment = datetime.fromisoformat(text.decode())
        since = moment - _EPOCH
    except (ValueError, TypeError):
        raise DataError(
            f"malformed time {text[:40]!r}: expected 2018-04-24T03:52:17.202Z"
        ) from None
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
