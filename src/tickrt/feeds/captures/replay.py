"""The book after each batch of an event file, as arrays: what `info` and `verify` look at."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import BATCH_END, DEPTH, KIND_MASK, LOCAL, SNAPSHOT
from tickrt.feeds.captures import replay_kernels as k
from tickrt.market.book import NO_ASK, NO_BID, new_book

__all__ = ["Replay", "guess_tick_size", "replay_book"]

Ints = npt.NDArray[np.int64]


class Replay(NamedTuple):
    """One entry per batch; B batches."""

    row: Ints  # [B] row of the batch's last event
    bid: Ints  # [B] best bid in ticks; NO_BID where the side is empty
    ask: Ints  # [B] best ask in ticks; NO_ASK where the side is empty
    bid_levels: Ints  # [B]
    ask_levels: Ints  # [B]
    qtys: npt.NDArray[np.float64]  # [B, 2] quantity at the best bid and ask
    refused: int  # events that the book refused
    refused_row: int  # row of the first of them; −1 if there is none
    refused_code: int

    @property
    def crossed(self) -> npt.NDArray[np.bool_]:
        """bool[B]: the best bid is at or above the best ask."""
        crossed: npt.NDArray[np.bool_] = self.two_sided & (self.bid >= self.ask)
        return crossed

    @property
    def two_sided(self) -> npt.NDArray[np.bool_]:
        """bool[B]: neither side is empty."""
        whole: npt.NDArray[np.bool_] = (self.bid != NO_BID) & (self.ask != NO_ASK)
        return whole


def replay_book(events: npt.NDArray[Any], tick_size: float) -> Replay:
    """Play `events` (EVENT_DTYPE[n], one symbol, with BATCH_END flags) through an empty book."""
    local = (events["ev"] & np.uint64(LOCAL)) != 0
    ends = local & ((events["ev"] & np.uint64(BATCH_END)) != 0)
    batches = int(np.count_nonzero(ends))
    out = np.zeros((batches, k.COLUMNS), np.int64)
    qtys = np.zeros((batches, 2))
    errors = np.zeros(3, np.int64)
    book = new_book([tick_size], far_capacity=1 << 16)
    k.replay(book, 0, events, out, qtys, errors)
    refused = int(errors[0])
    return Replay(
        row=out[:, k.ROW],
        bid=out[:, k.BID],
        ask=out[:, k.ASK],
        bid_levels=out[:, k.BID_LEVELS],
        ask_levels=out[:, k.ASK_LEVELS],
        qtys=qtys,
        refused=refused,
        refused_row=int(errors[1]) if refused else -1,
        refused_code=int(errors[2]),
    )


def guess_tick_size(events: npt.NDArray[Any]) -> float:
    """The power of ten that all book prices are multiples of; 1e-8 if it is none of 1 … 1e-8."""
    kinds = events["ev"] & np.uint64(KIND_MASK)
    px = np.unique(events["px"][(kinds == DEPTH) | (kinds == SNAPSHOT)])
    for digits in range(9):
        scaled = px * 10.0**digits
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-6 + 4e-16 * scaled):
            break
    return float(10.0**-digits)
