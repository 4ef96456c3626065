"""The engine handle: all that the hot loop knows of any backend.

A handle is one row of int64 in `Engines.table`: addresses of C functions and buffers.

    submit(ctx, seq, n)  start on row number `seq`; n inputs of the batch, 1 ≤ n ≤ max_batch
    poll(ctx, seq)       OK: the output belongs to `seq`; PENDING: not yet; negative: an error
    advance(ctx, seq)    row `seq`'s order is out: do what does not depend on the next row
    reset(ctx)           the stream starts anew: forget every state

Each returns an int64 `Code`.

The input is the stream's mirrored ring of rows (`features.streams`), so a window is never copied:
row `seq` of a window of T rows ends the T rows that start at ring row ``seq % T + 1``. The output
is float32 at `OUTPUT`, and the int64 at `STAMP` is the number of the row that it was made from: a
stale or torn result cannot be taken for a fresh one.

Entry points: `Engine` (what a backend's constructor returns), `new_engines([…])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import ConfigError

__all__ = ["HANDLE_COLUMNS", "Engine", "Engines", "RowRing", "new_engines"]

HANDLE_COLUMNS = (
    "submit",
    "poll",
    "advance",
    "reset",
    "ctx",
    "input",
    "output",
    "stamp",
    "n_outputs",
    "max_batch",
)


class RowRing(NamedTuple):
    """Where a stream's rows lie, for a backend that reads windows in place."""

    address: int  # of float32 [2·T, F]
    window: int  # T
    width: int  # F


class Engine(Protocol):
    """One running model on one stream. Closing it releases what the handle points to."""

    backend: str

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `HANDLE_COLUMNS`."""
        ...

    def describe(self) -> dict[str, Any]:
        """What to print about it: backend, version, threads, model hash."""
        ...

    def error(self) -> str:
        """The text of the last failure, or an empty string."""
        ...

    def close(self) -> None:
        """Release it; the handle must not be used any more."""
        ...


class Engines(NamedTuple):
    """E engines as compiled code sees them."""

    table: NDArray[np.int64]  # [E, 10] a handle per row
    stream: NDArray[np.int64]  # [E] index of the stream that it listens to
    code: NDArray[np.int64]  # [E] Code of its last result
    deadline: NDArray[np.int64]  # [E] clock ticks that a result may take


def new_engines(engines: Sequence[Engine], streams: Sequence[int], deadline_ticks: int) -> Engines:
    """The table of `engines`, engine i listening to ``streams[i]``.

    Raises:
        ConfigError: an engine whose outputs are not (down, flat, up).
    """
    table = np.array([engine.handle() for engine in engines], np.int64)
    for i, row in enumerate(table.reshape(-1, len(HANDLE_COLUMNS))):
        if row[HANDLE_COLUMNS.index("n_outputs")] != 3:
            raise ConfigError(f"engine {i}: expected 3 outputs (down, flat, up), got {row[8]}")
    count = len(engines)
    return Engines(
        table=table,
        stream=np.array(streams, np.int64),
        code=np.zeros(count, np.int64),
        deadline=np.full(count, deadline_ticks, np.int64),
    )
