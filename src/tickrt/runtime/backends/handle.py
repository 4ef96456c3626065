"""The engine handle: all that the hot loop knows of any backend.

A handle is one row of int64 in `Engines.table` (columns: `codes.ENGINE_*`): addresses of C
functions and buffers.

    submit(ctx, seq, n)  start on row number `seq`; n is 1
    poll(ctx, seq)       OK: the output belongs to `seq`; PENDING: not yet; negative: an error
    advance(ctx, seq)    row `seq`'s order is out: do what does not depend on the next row
    reset(ctx)           the stream starts anew: forget every state

Each returns an int64 `Code`.

The input is the stream's mirrored ring of rows (`feature.streams`), so a window is never copied:
row `seq` of a window of T rows ends the T rows that start at ring row ``seq % T + 1``. The output
is float32 [n_outputs] at `output`, and the int64 at `stamp` is the number of the row that it was
made from: a stale or torn result cannot be taken for a fresh one.

An engine with a `max_batch` over 1 answers rows of that many streams at once: the loop takes other
symbols' batches until its answer is there (`runtime.loop.flight_kernels`). Engines that share a
host have the same attribute `lane`, and answer in the order in which they were asked.

Entry points: `Engine` (what a backend's constructor returns), `new_engines([…])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import (
    ENGINE_COLUMNS,
    ENGINE_N_OUTPUTS,
    ENGINE_ROWS,
    HEAD_PROBABILITIES,
)
from tickrt.errors import ConfigError

__all__ = ["Engine", "Engines", "RowRing", "head_of", "new_engines"]


class RowRing(NamedTuple):
    """Where a stream's rows lie, for a backend that reads windows in place."""

    address: int  # of float32 [2·T, F]
    window: int  # T
    width: int  # F


class Engine(Protocol):
    """One running model on one stream. Closing it releases what the handle points to."""

    backend: str

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
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
    """E engines as compiled code sees them, in `ENGINE_ROWS` rows each: one in use and a spare.

    Strategy p listens to row ``active[p]``, which the loop reads once per batch: storing another
    row there exchanges its engine between two batches.
    """

    table: NDArray[np.int64]  # [R, 10] a handle per row; zeros: no engine there
    stream: NDArray[np.int64]  # [E] index of the stream that engine e listens to
    active: NDArray[np.int64]  # [P] the row that strategy p listens to
    current: NDArray[np.int64]  # [P] what `active` was when this batch began
    code: NDArray[np.int64]  # [R] Code of its last result
    deadline: NDArray[np.int64]  # [R] clock ticks that a result may take
    head: NDArray[np.int64]  # [R] what makes a signal of its outputs: codes.HEAD_*
    where: NDArray[np.int64]  # [1] address of `active`
    lane: NDArray[np.int64]  # [E] engines with the same number answer in the order of their rows


def new_engines(
    engines: Sequence[Engine],
    streams: Sequence[int],
    strategy_engine: Sequence[int],
    deadline_ticks: int,
) -> Engines:
    """The table of `engines`: engine i listens to ``streams[i]``, strategy p to
    ``strategy_engine[p]``.

    Raises:
        ConfigError: an engine whose outputs no head understands.
    """
    rows = len(engines) * ENGINE_ROWS
    table = np.zeros((rows, ENGINE_COLUMNS), np.int64)
    for i, engine in enumerate(engines):
        table[i * ENGINE_ROWS] = engine.handle()
    head = np.zeros(rows, np.int64)
    for i, outputs in enumerate(table[::ENGINE_ROWS, ENGINE_N_OUTPUTS]):
        head[i * ENGINE_ROWS : (i + 1) * ENGINE_ROWS] = head_of(int(outputs), f"engine {i}")
    active = np.array(strategy_engine, np.int64) * ENGINE_ROWS
    return Engines(
        table=table,
        stream=np.array(streams, np.int64),
        active=active,
        current=active.copy(),
        code=np.zeros(rows, np.int64),
        deadline=np.full(rows, deadline_ticks, np.int64),
        head=head,
        where=np.array([active.ctypes.data], np.int64),
        lane=_lanes(engines),
    )


def _lanes(engines: Sequence[Engine]) -> NDArray[np.int64]:
    """Numbers from 0 on: one for each host that engines share (`lane`), one for every other."""
    names = [getattr(engine, "lane", f"engine {i}") for i, engine in enumerate(engines)]
    seen = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return np.array([seen[name] for name in names], np.int64)


def head_of(outputs: int, where: str) -> int:
    """The head that makes a signal of that many outputs.

    Raises:
        ConfigError: there is none.
    """
    if outputs != 3:
        raise ConfigError(f"{where}: expected 3 outputs (down, flat, up), got {outputs}")
    return HEAD_PROBABILITIES
