"""The mailbox between the loop and an engine host: its layout in memory, declared once.

Two mappings, because they may be of two kinds. *Row memory* (perhaps the GPU's own) is written by
the loop alone and never read by it: a ring of messages, one for every row. *Host memory* (always
ordinary) holds a block of control words and a ring of replies.

    message  stamp: its number 1, 2, 3 …, written last; flags, row number, rows of the batch
    reply    stamp: the number of its row, written last; error, values

Message m lies at slot ``(m - 1) % slots``, the reply to row `seq` at slot ``seq % slots``. Every
row is sent once, in order. With the flag ANSWER the host replies, then advances; without it (the
window is not complete, or another engine is in use) it only advances. With the flag RESET it
forgets every state first. The host writes how many messages it has taken (`TAKEN`), so a slot is
not written again before it was read; a row that finds no room is dropped, and the next one has the
flag RESET.

Entry points: `Layout`; `Mailbox`, the host's view and that of whoever watches it. The loop's side
is compiled: `runtime.backends.mailbox`.

Invariants: data is stored before its stamp and loaded after it. A reply's slot is marked as empty
before it is written, so one that is read halfway shows two stamps.

Known limits: Python cannot order its stores itself; `Mailbox` relies on the total store order of
x86-64. The 32 bytes before a message's rows are free: for a kernel that watches the rows themselves
and needs a pattern that says 'not yet here'.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import HostError

__all__ = [
    "ABORT",
    "BEAT",
    "CONTROL_BYTES",
    "ERROR",
    "FAILED",
    "GENERATION",
    "GONE",
    "SERVING",
    "STARTING",
    "STATE",
    "STOPPED",
    "TAKEN",
    "VERSION",
    "Layout",
    "Mail",
    "Mailbox",
]

MAGIC = 0x746B_7274_6D62_6F78
VERSION = 1
CONTROL_BYTES = 4096
TEXT, TEXT_BYTES = 2048, 1024  # the last error in words

# Control words: byte offsets in host memory, a cache line each. The host writes …
STATE = 64  # STARTING …
BEAT = 128  # counts up while it serves
TAKEN = 192  # messages that it has read
ERROR = 256  # not 0: it has failed for good, TEXT says why
GENERATION = 320  # engines that this process has loaded, this one included
# … and these are written to it.
ABORT = 1024  # not 0: end at once
GONE = 1088  # not 0: whoever watches it says that it has died

STARTING, SERVING, STOPPED, FAILED = 0, 1, 2, 3
EMPTY = -1  # stamp of a reply that is being written
_MAX_SLOTS, _MAX_BYTES = 1 << 16, 1 << 30


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


@dataclass(frozen=True)
class Layout:
    """Sizes of a mailbox.

    Attributes:
        width: F, float32 of a row.
        outputs: float32 of an answer.
        max_batch: rows of a message, at most.
        slots: messages and replies that it holds, a power of two.

    Raises:
        HostError: a size that cannot be.
    """

    width: int
    outputs: int
    max_batch: int = 1
    slots: int = 256

    def __post_init__(self) -> None:
        if min(self.width, self.outputs, self.max_batch) < 1:
            raise HostError(f"mailbox: {self}: expected 1 or more of each")
        if not 2 <= self.slots <= _MAX_SLOTS or self.slots & (self.slots - 1):
            raise HostError(f"mailbox: slots: expected a power of two from 2, got {self.slots}")
        if self.row_bytes + self.host_bytes > _MAX_BYTES:
            raise HostError(f"mailbox: {self}: more than {_MAX_BYTES >> 20} MiB")

    @property
    def row_stride(self) -> int:
        """Bytes from a row of a batch to the next."""
        return _up(4 * self.width, 16)

    @property
    def mail_bytes(self) -> int:
        """Bytes of a message's slot."""
        return _up(codes.MAIL_ROWS + self.max_batch * self.row_stride, 64)

    @property
    def row_bytes(self) -> int:
        """Bytes of the row memory."""
        return self.slots * self.mail_bytes

    @property
    def answer_pieces(self) -> int:
        """Pieces of sixteen bytes of an answer, where the kernel watches the rows."""
        return _up(self.outputs, codes.PIECE_OUTPUTS) // codes.PIECE_OUTPUTS

    @property
    def reply_bytes(self) -> int:
        """Bytes of a reply's slot."""
        plain = 4 * self.max_batch * self.outputs
        pieces = 16 * self.max_batch * self.answer_pieces
        return _up(codes.REPLY_VALUES + max(plain, pieces), 64)

    @property
    def host_bytes(self) -> int:
        """Bytes of the host memory."""
        return CONTROL_BYTES + self.slots * self.reply_bytes

    @property
    def mail_dtype(self) -> np.dtype[Any]:
        """A message as a structured type."""
        rows = np.dtype((np.float32, (self.max_batch, self.row_stride // 4)))
        return np.dtype(
            {
                "names": ["stamp", "flags", "seq", "count", "rows"],
                "formats": [np.int64, np.int64, np.int64, np.int64, rows],
                "offsets": [
                    codes.MAIL_STAMP,
                    codes.MAIL_FLAGS,
                    codes.MAIL_SEQ,
                    codes.MAIL_COUNT,
                    codes.MAIL_ROWS,
                ],
                "itemsize": self.mail_bytes,
            }
        )

    @property
    def reply_dtype(self) -> np.dtype[Any]:
        """A reply as a structured type."""
        values = np.dtype((np.float32, (self.max_batch, self.outputs)))
        return np.dtype(
            {
                "names": ["stamp", "error", "values"],
                "formats": [np.int64, np.int64, values],
                "offsets": [codes.REPLY_STAMP, codes.REPLY_ERROR, codes.REPLY_VALUES],
                "itemsize": self.reply_bytes,
            }
        )

    def to_dict(self) -> dict[str, int]:
        """For a message; `Layout(**…)` reads it."""
        return asdict(self)

    @property
    def header(self) -> list[int]:
        """The first words of host memory."""
        return [MAGIC, VERSION, self.width, self.outputs, self.max_batch, self.slots]


@dataclass(frozen=True)
class Mail:
    """One message: rows float32 [n, F], copied."""

    seq: int
    answer: bool
    reset: bool
    rows: NDArray[np.float32]


class Mailbox:
    """The host's view of a mailbox, and that of the process that watches the host.

    Args:
        layout: its sizes.
        host: the host memory, uint8.
        rows: the row memory, uint8; None for who only watches, or where it is no ordinary memory.
        fresh: write the header: the first to see it does so; everybody else compares it.

    Raises:
        HostError: the memory is not a mailbox of this version and these sizes.
    """

    def __init__(
        self,
        layout: Layout,
        host: NDArray[np.uint8],
        rows: NDArray[np.uint8] | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        wanted = (layout.host_bytes, layout.row_bytes)
        if host.size < wanted[0] or (rows is not None and rows.size < wanted[1]):
            raise HostError(f"mailbox: the memory is smaller than {wanted} bytes for {layout}")
        self.layout = layout
        self._words = host[:CONTROL_BYTES].view(np.int64)
        self._text = host[TEXT : TEXT + TEXT_BYTES]
        if fresh:
            self._words[: len(layout.header)] = layout.header
        if self._words[: len(layout.header)].tolist() != layout.header:
            raise HostError(
                f"mailbox: its header is {self._words[: len(layout.header)].tolist()}, expected "
                f"{layout.header}: use the same tickrt on both sides"
            )
        self._replies = host[CONTROL_BYTES : layout.host_bytes].view(layout.reply_dtype)
        self._stamps, self._errors = self._replies["stamp"], self._replies["error"]
        self._values = self._replies["values"]
        self._mask = layout.slots - 1
        self._mail = None if rows is None else rows[: layout.row_bytes].view(layout.mail_dtype)
        self._mail_stamps = None if self._mail is None else self._mail["stamp"]
        self._taken = int(self._words[TAKEN // 8])

    def get(self, word: int) -> int:
        """A control word."""
        return int(self._words[word // 8])

    def put(self, word: int, value: int) -> None:
        """Store a control word."""
        self._words[word // 8] = value

    @property
    def text(self) -> str:
        """The last error in words; empty where there is none."""
        return self._text.tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")

    def say(self, text: str) -> None:
        """Store `text` as the last error."""
        data = text.encode()[: TEXT_BYTES - 1]
        self._text[: len(data)] = np.frombuffer(data, np.uint8)
        self._text[len(data)] = 0

    def fail(self, text: str) -> None:
        """The engine has failed for good: every call of its handle says so from now on."""
        self.say(text)
        self.put(STATE, FAILED)
        self.put(ERROR, 1)

    def take(self) -> Mail | None:
        """The next message, or None when there is none yet. Its slot is free afterwards."""
        assert self._mail is not None
        assert self._mail_stamps is not None
        place = self._taken & self._mask
        if self._mail_stamps[place] != self._taken + 1:
            return None
        slot = self._mail[place]
        flags, count = int(slot["flags"]), int(slot["count"])
        rows = slot["rows"][:count, : self.layout.width].copy()
        mail = Mail(
            int(slot["seq"]), bool(flags & codes.MAIL_ANSWER), bool(flags & codes.MAIL_RESET), rows
        )
        self._taken += 1
        self.put(TAKEN, self._taken)
        return mail

    def reply(self, seq: int, values: NDArray[np.float32] | None, error: int = 0) -> None:
        """Answer row `seq`.

        Args:
            values: float32 [n, outputs]; None with an error.
            error: not 0: there is no answer; `say` has the reason.
        """
        slot = seq & self._mask
        self._stamps[slot] = EMPTY
        self._errors[slot] = error
        if values is not None:
            self._values[slot, : len(values)] = values
        self._stamps[slot] = seq
