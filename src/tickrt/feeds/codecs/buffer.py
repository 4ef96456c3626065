"""Where a codec puts the events that it decodes: a preallocated array with a count.

`EventBuffer.put` appends the levels of one side of one message, `end_batch` marks the last event of
the message with `BATCH_END`. A live feed publishes `events` after each message and calls `clear`;
a conversion lets the buffer grow. Growing doubles the capacity, so it happens rarely; views of
`events` taken before it refer to the old memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import BATCH_END
from tickrt.memory.records import EVENT_DTYPE

__all__ = ["EventBuffer"]


class EventBuffer:
    """Events in the order in which they were decoded.

    Args:
        capacity: for how many events memory is allocated at first.
    """

    __slots__ = ("_columns", "_memory", "count")

    def __init__(self, capacity: int = 1 << 16) -> None:
        self.count = 0
        self._use(np.zeros(max(capacity, 1), EVENT_DTYPE))

    def _use(self, memory: npt.NDArray[Any]) -> None:
        self._memory = memory
        names = ("ev", "exch_ts", "local_ts", "order_id", "px", "qty")
        self._columns = tuple(memory[name] for name in names)

    @property
    def events(self) -> npt.NDArray[Any]:
        """The events so far, `EVENT_DTYPE[count]`; a view."""
        return self._memory[: self.count]

    def clear(self) -> None:
        """Forget the events; the memory stays."""
        self.count = 0

    def put(
        self,
        ev: int,
        exch_ns: int,
        local_ns: int,
        order_id: int,
        px: Sequence[float],
        qty: Sequence[float],
    ) -> None:
        """Append one event per price, all with the same flags, times (ns) and id."""
        start, stop = self.count, self.count + len(px)
        if stop > len(self._memory):
            self._grow(stop)
        evs, exchs, locals_, ids, pxs, qtys = self._columns
        evs[start:stop] = ev
        exchs[start:stop] = exch_ns
        locals_[start:stop] = local_ns
        ids[start:stop] = order_id
        pxs[start:stop] = px
        qtys[start:stop] = qty
        self.count = stop

    def end_batch(self) -> None:
        """Mark the newest event as the last one of its message."""
        if self.count:
            self._columns[0][self.count - 1] |= np.uint64(BATCH_END)

    def _grow(self, needed: int) -> None:
        memory = np.zeros(max(needed, 2 * len(self._memory)), EVENT_DTYPE)
        memory[: self.count] = self.events
        self._use(memory)
