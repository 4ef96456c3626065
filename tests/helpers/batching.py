"""Streams that share a mailbox: their rings, their handles, and a host in this very process.

Entry points: `Rings`; `Shared` (a `BatchSide` whose host is a `BatchServer` that the test turns);
`one_of_many` (an engine of a group, as a contract test wants it).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.engine_bench import do_advance, do_poll, do_reset, do_submit, outputs
from tickrt.errors import Code
from tickrt.host.batch import BatchMailbox
from tickrt.host.kernels.registry import BatchKernel
from tickrt.host.serve_batch import BatchServer
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.mailbox.batch import BatchSide


class Rings:
    """The rows of `members` streams, each in a mirrored ring."""

    def __init__(self, members: int, window: int, width: int) -> None:
        self.rows = np.zeros((members, 2 * window, width), np.float32)
        self.window = window

    def all(self) -> list[RowRing]:
        shape = self.rows.shape
        return [RowRing(ring.ctypes.data, self.window, shape[2]) for ring in self.rows]

    def write(self, member: int, seq: int, row: np.ndarray) -> None:
        at = seq % self.window
        self.rows[member, at] = self.rows[member, at + self.window] = row


class Shared:
    """A mailbox of many streams; `turn` has the host answer the next message."""

    def __init__(
        self, kernel: BatchKernel | None, members: int, window: int, width: int, max_batch: int
    ) -> None:
        self.rings = Rings(members, window, width)
        self.side = BatchSide(self.rings.all(), 3, max_batch)
        self.tables = [self.side.handle(member) for member in range(members)]
        assert self.side.host.view is not None
        self.box = BatchMailbox(self.side.layout, self.side.host.view, self.side.rows.view)
        memories: Any = (None, None)
        self.server = BatchServer(self.box, kernel, memories, lambda: None)

    def submit(self, member: int, seq: int, row: np.ndarray) -> int:
        self.rings.write(member, seq, row)
        return int(do_submit(self.tables[member], seq))

    def advance(self, member: int, seq: int, row: np.ndarray) -> int:
        self.rings.write(member, seq, row)
        return int(do_advance(self.tables[member], seq))

    def reset(self, member: int) -> None:
        assert do_reset(self.tables[member]) == Code.OK

    def poll(self, member: int, seq: int) -> int:
        return int(do_poll(self.tables[member], seq))

    def turn(self) -> bool:
        return self.server.turn()

    def outputs(self, member: int) -> np.ndarray:
        return np.array(outputs(self.tables[member]), np.float32)

    def close(self) -> None:
        self.side.close()


class OneOfMany:
    """The middle one of a group's engines; closing it closes all."""

    def __init__(self, engines: list[Engine]) -> None:
        self._engines = engines
        self._mine = engines[len(engines) // 2]
        self.backend = self._mine.backend
        self.handle, self.describe = self._mine.handle, self._mine.describe
        self.error = self._mine.error

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


def among(ring: RowRing, others: Rings) -> list[RowRing]:
    """`ring` between those of `others`."""
    return [others.all()[0], ring, others.all()[1]]
