"""The level-2 order book's state: a dense price ladder a side, bitmaps, a table of far levels.

`new_book` allocates everything once; `kernels` reads and writes it. One `Book` holds all symbols of
a session (leading axis). A ladder covers `ladder_ticks` consecutive prices, index 0 the worst of
them on both sides (see `kernels` for keys and invariants), and follows the best price of its side;
what lies outside is kept in a small hash table and comes back when the ladder does.

With the defaults a symbol takes 3 MiB: 13,107 dollars of a 0.1-dollar tick a side, and up to
28,672 further levels a side (the deepest recorded book, gdax, has 11,382 there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickrt.errors import ConfigError
from tickrt.market.kernels import (
    ANCHOR_ASK,
    ANCHOR_BID,
    BEST_ASK,
    BEST_BID,
    EVENTS,
    FAR_ASK,
    FAR_BID,
    HEAD,
    LAST_TS,
    LEVELS_ASK,
    LEVELS_BID,
    NO_ASK,
    NO_BID,
    REANCHORS,
)

__all__ = [
    "ANCHOR_ASK",
    "ANCHOR_BID",
    "BEST_ASK",
    "BEST_BID",
    "EVENTS",
    "FAR_ASK",
    "FAR_BID",
    "HEAD",
    "LAST_TS",
    "LEVELS_ASK",
    "LEVELS_BID",
    "NO_ASK",
    "NO_BID",
    "REANCHORS",
    "Book",
    "new_book",
]


class Book(NamedTuple):
    """S symbols, 2 sides (0 bids, 1 asks), N ladder levels, M far slots.

    Attributes:
        qty: float64[S, 2, N], quantity of each ladder level; 0 is an empty level.
        bits: uint64[S, 2, N / 64], one bit for each occupied ladder level.
        summary: uint64[S, 2, N / 4096], one bit for each word of `bits` that is not 0.
        far_tick: int64[S, 2, M], price of a far level in ticks; open addressing, linear probing.
        far_qty: float64[S, 2, M], its quantity; 0 is a free slot.
        head: int64[S, HEAD], the columns `ANCHOR_BID` … `EVENTS`.
        inv_tick: float64[S], 1 / tick size.
    """

    qty: npt.NDArray[np.float64]
    bits: npt.NDArray[np.uint64]
    summary: npt.NDArray[np.uint64]
    far_tick: npt.NDArray[np.int64]
    far_qty: npt.NDArray[np.float64]
    head: npt.NDArray[np.int64]
    inv_tick: npt.NDArray[np.float64]


def new_book(
    tick_sizes: Sequence[float], ladder_ticks: int = 1 << 17, far_capacity: int = 1 << 15
) -> Book:
    """An empty book for each of `tick_sizes`.

    Args:
        tick_sizes: smallest price step of each symbol, in quote currency.
        ladder_ticks: N, prices that a ladder covers; a power of two, at least 4096.
        far_capacity: M, slots for levels outside the ladder; a power of two, at least 8. Seven
            eighths of them can be used.

    Raises:
        ConfigError: an argument out of range; the message names it.
    """
    for i, tick_size in enumerate(tick_sizes):
        if not (math.isfinite(tick_size) and tick_size > 0):
            raise ConfigError(f"tick_sizes[{i}]: expected a number above 0, got {tick_size!r}")
    for name, value, least in (
        ("ladder_ticks", ladder_ticks, 4096),
        ("far_capacity", far_capacity, 8),
    ):
        if value < least or value & (value - 1):
            raise ConfigError(f"{name}: expected a power of two, at least {least}, got {value!r}")
    s = len(tick_sizes)
    head = np.zeros((s, HEAD), np.int64)
    head[:, (ANCHOR_BID, ANCHOR_ASK)] = NO_ASK  # above every key: the first level places the ladder
    head[:, BEST_BID] = NO_BID
    head[:, BEST_ASK] = NO_ASK
    return Book(
        qty=np.zeros((s, 2, ladder_ticks)),
        bits=np.zeros((s, 2, ladder_ticks // 64), np.uint64),
        summary=np.zeros((s, 2, ladder_ticks // 4096), np.uint64),
        far_tick=np.zeros((s, 2, far_capacity), np.int64),
        far_qty=np.zeros((s, 2, far_capacity)),
        head=head,
        inv_tick=1.0 / np.asarray(tick_sizes, np.float64),
    )
