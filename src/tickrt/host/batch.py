"""A mailbox that many streams share: a message holds what was ready at one moment, a row of each.

As `mailbox`, but for two things. Each row of a message has a head of its own, which says whose row
it is, its number and its flags; and each stream has reply slots of its own, so an answer is found
by stream and row. `TAKEN` counts messages whose rows are answered and done with: where it equals
the number of messages sent, the engine is free.

Entry points: `BatchLayout`; `BatchMailbox`, the host's view; `layout_of` a message of the channel;
`buckets`.
The loop's side is compiled: `runtime.backends.mailbox.batch_kernels`.

Invariants: those of `mailbox`. Rows of one stream are in order, in a message and from one to the
next; a stream may have several in one. A message is read in place: its slot is free when it is done
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import HostError
from tickrt.host.mailbox import CONTROL_BYTES, EMPTY, TAKEN, Layout, Mailbox

__all__ = ["MAX_MEMBERS", "BatchLayout", "BatchMail", "BatchMailbox", "buckets", "layout_of"]

MAX_MEMBERS = 4096


@dataclass(frozen=True)
class BatchLayout(Layout):
    """Sizes of a mailbox for many streams.

    Attributes:
        members: streams that share it.

    Raises:
        HostError: a size that cannot be.
    """

    members: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.members <= MAX_MEMBERS:
            raise HostError(f"mailbox: expected 1 … {MAX_MEMBERS} streams, got {self.members}")
        super().__post_init__()

    @property
    def row_stride(self) -> int:
        """Bytes from a row of a message, with its head, to the next."""
        return codes.BATCH_VALUES + super().row_stride

    @property
    def reply_bytes(self) -> int:
        """Bytes of a reply's slot."""
        return -(-(codes.REPLY_VALUES + 4 * self.outputs) // 64) * 64

    @property
    def host_bytes(self) -> int:
        """Bytes of the host memory."""
        return CONTROL_BYTES + self.members * codes.BATCH_REPLIES * self.reply_bytes

    @property
    def mail_dtype(self) -> np.dtype[Any]:
        """A message as a structured type."""
        row = np.dtype(
            {
                "names": ["member", "seq", "flags", "values"],
                "formats": [np.int64, np.int64, np.int64, np.dtype((np.float32, (self.width,)))],
                "offsets": [
                    codes.BATCH_MEMBER,
                    codes.BATCH_SEQ,
                    codes.BATCH_FLAGS,
                    codes.BATCH_VALUES,
                ],
                "itemsize": self.row_stride,
            }
        )
        return np.dtype(
            {
                "names": ["stamp", "count", "rows"],
                "formats": [np.int64, np.int64, np.dtype((row, (self.max_batch,)))],
                "offsets": [codes.MAIL_STAMP, codes.MAIL_COUNT, codes.MAIL_ROWS],
                "itemsize": self.mail_bytes,
            }
        )

    @property
    def reply_dtype(self) -> np.dtype[Any]:
        """A reply as a structured type."""
        return np.dtype(
            {
                "names": ["stamp", "error", "values"],
                "formats": [np.int64, np.int64, np.dtype((np.float32, (self.outputs,)))],
                "offsets": [codes.REPLY_STAMP, codes.REPLY_ERROR, codes.REPLY_VALUES],
                "itemsize": self.reply_bytes,
            }
        )

    @property
    def header(self) -> list[int]:
        """The first words of host memory."""
        return [*super().header, self.members]


def buckets(max_batch: int) -> list[int]:
    """Sizes that an engine is made for: 1, 2, 4 … up to the first that holds `max_batch` rows."""
    found = [1]
    while found[-1] < max_batch:
        found.append(2 * found[-1])
    return found


def layout_of(sizes: Mapping[str, int]) -> Layout:
    """The layout that `Layout.to_dict` made `sizes` of."""
    return BatchLayout(**sizes) if "members" in sizes else Layout(**sizes)


@dataclass(frozen=True)
class BatchMail:
    """The rows of one message, where they lie.

    Attributes:
        members: int64[n], whose row each is.
        seqs: int64[n], its number.
        flags: int64[n], ``codes.MAIL_*``.
        rows: float32 [n, F].
    """

    members: NDArray[np.int64]
    seqs: NDArray[np.int64]
    flags: NDArray[np.int64]
    rows: NDArray[np.float32]


class BatchMailbox(Mailbox):
    """The host's view of a mailbox that many streams share; arguments as for `Mailbox`."""

    layout: BatchLayout

    def look(self) -> BatchMail | None:
        """The next message, or None when there is none yet. It stays until `done`."""
        assert self._mail is not None
        slot = self._mail[self._taken & self._mask]
        if slot["stamp"] != self._taken + 1:
            return None
        rows = slot["rows"][: int(slot["count"])]
        return BatchMail(rows["member"].copy(), rows["seq"].copy(), rows["flags"], rows["values"])

    def done(self) -> None:
        """The message at hand is answered and done with."""
        self._taken += 1
        self.put(TAKEN, self._taken)

    def reply_rows(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], values: NDArray[np.float32]
    ) -> None:
        """Answer rows: float32 [n, outputs]. Each stream is in it once."""
        slots = members * codes.BATCH_REPLIES + seqs % codes.BATCH_REPLIES
        self._stamps[slots] = EMPTY
        self._errors[slots] = 0
        self._values[slots] = values
        self._stamps[slots] = seqs

    def refuse(self, member: int, seq: int) -> None:
        """There is no answer to a row; `say` has the reason."""
        slot = member * codes.BATCH_REPLIES + seq % codes.BATCH_REPLIES
        self._stamps[slot] = EMPTY
        self._errors[slot] = 1
        self._stamps[slot] = seq
