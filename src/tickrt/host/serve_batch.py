"""The loop of a host that many streams share: a message comes, its rows' answers go, all advance.

Entry point: `BatchServer`, a thread as `serve.Server` is.

Invariants: of a message, every row that wants an answer has it before any of its streams advances;
a stream that has several rows in one is asked in order. What refuses one row touches no other.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import MAIL_ANSWER, MAIL_RESET
from tickrt.host.batch import BatchMail, BatchMailbox
from tickrt.host.serve import Server

__all__ = ["BatchServer", "rounds"]


def rounds(members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions in `members`, in order, cut so that no member is twice in one part."""
    if len(members) < 2 or len(np.unique(members)) == len(members):
        return [np.arange(len(members))]
    parts: list[NDArray[np.int64]] = []
    seen: set[int] = set()
    first = 0
    for i, member in enumerate(members.tolist()):
        if member in seen:
            parts.append(np.arange(first, i))
            seen, first = set(), i
        seen.add(member)
    return [*parts, np.arange(first, len(members))]


class BatchServer(Server):
    """A thread that serves one mailbox of many streams with one `kernels.registry.BatchKernel`."""

    _box: BatchMailbox

    def turn(self) -> bool:
        mail = self._box.look()
        if mail is None:
            return False
        began = time.perf_counter()
        for part in rounds(mail.members):
            self._round(mail, part, began)
        self._box.done()
        served = self.served
        served.rows += len(mail.seqs)
        served.messages += 1
        served.rows_max = max(served.rows_max, len(mail.seqs))
        served.busy_us += 1e6 * (time.perf_counter() - began)
        return True

    def _round(self, mail: BatchMail, part: NDArray[np.int64], began: float) -> None:
        """Rows of different streams: reset, answer, advance."""
        members, seqs, flags = mail.members[part], mail.seqs[part], mail.flags[part]
        rows = mail.rows[part]
        for member in members[flags & MAIL_RESET != 0].tolist():
            self.served.resets += 1
            self._kernel.reset_member(member)
        asked = np.flatnonzero(flags & MAIL_ANSWER)
        for first in range(0, len(asked), self._kernel.max_rows):
            some = asked[first : first + self._kernel.max_rows]
            self._answer_rows(members[some], seqs[some], rows[some])
            took_us = 1e6 * (time.perf_counter() - began)
            self.served.answer_us_max = max(self.served.answer_us_max, took_us)
        self._kernel.advance_batch(members, seqs, rows)

    def _answer_rows(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        out = self._out[: len(rows)]
        refused = self._kernel.answer_batch(members, seqs, rows, out)
        for i, why in refused.items():
            self._box.say(why)
            self._box.refuse(int(members[i]), int(seqs[i]))
        if refused:
            good = np.array([i for i in range(len(rows)) if i not in refused], np.int64)
            members, seqs, out = members[good], seqs[good], out[good]
        self._box.reply_rows(members, seqs, out)
        self.served.refused += len(refused)
        self.served.answers += len(out)
