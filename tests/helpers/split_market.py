"""Markets written as short scripts, for tests of the order book: wide books, long messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import (
    BATCH_END,
    BUY,
    CLEAR,
    DEPTH,
    EXCH,
    LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.memory.records import EVENT_DTYPE

FLAGS = (BUY, SELL)
TICK = 0.1


class Market:
    """A book of `levels` a side, and what happens to it. Sides: 0 bids, 1 asks; `away` is the
    distance from the side's best price in ticks.

    Changes: ("level", side, away, qty), ("run", side, away, count, qty) of prices from `away` on,
    ("sweep", side, count) takes the best levels out, ("leap", side, ticks) takes the other side
    away and quotes so far beyond the best, ("snapshot", levels) begins anew, ("clear", side,
    away) with 2 for both, ("trade", side, qty), ("bad", side, price).
    """

    def __init__(self, levels: int, symbol: int = 0, mid: int = 50_000) -> None:
        self.symbol, self.mid, self.start = symbol, mid, levels
        self.levels: tuple[dict[int, float], dict[int, float]] = ({}, {})
        self.events: list[tuple[int, float, float]] = []

    def best(self, side: int) -> int:
        held = self.levels[side]
        sign = 1 - 2 * side
        return sign * max((sign * tick for tick in held), default=sign * self.mid - 1)

    def set(self, side: int, tick: int, qty: float, kind: int = DEPTH) -> None:
        tick = max(tick, 0)
        self.events.append((kind | FLAGS[side], tick * TICK, qty))
        if qty:
            self.levels[side][tick] = qty
        else:
            self.levels[side].pop(tick, None)

    def clear(self, side: int, tick: int) -> None:
        flag = 0 if side == 2 else FLAGS[side]
        self.events.append((CLEAR | flag, tick * TICK, 0.0))
        for each in (0, 1) if side == 2 else (side,):
            sign = 1 - 2 * each
            held = self.levels[each]
            for level in [t for t in held if not flag or not tick or sign * (t - tick) >= 0]:
                del held[level]

    def snapshot(self, levels: int) -> None:
        self.clear(2, 0)
        for i in range(1, levels + 1):
            for side in (0, 1):
                tick = self.mid - (1 - 2 * side) * (i + i // 3)
                self.set(side, tick, float(1 + i % 7), SNAPSHOT)

    def change(self, what: str, *how: Any) -> None:
        """One change of a script."""
        if what == "snapshot":
            self.snapshot(how[0])
            return
        side, sign = how[0], 1 - 2 * how[0]
        best = self.best(side % 2)
        if what == "level":
            self.set(side, best - sign * how[1], how[2])
        elif what == "run":
            for i in range(how[2]):
                self.set(side, best - sign * (how[1] + i), how[3])
        elif what == "sweep":
            for tick in sorted(self.levels[side], reverse=side == 0)[: how[1]]:
                self.set(side, tick, 0.0)
        elif what == "leap":
            self.clear(1 - side, 0)
            self.set(side, best + sign * how[1], 1.0)
            self.set(1 - side, best + sign * (how[1] + 1), 1.0)
            self.mid = max(best + sign * how[1], 20_000)
        elif what == "clear":
            self.clear(side, best - sign * how[1])
        elif what == "trade":
            self.events.append((TRADE | FLAGS[side], best * TICK, float(how[1])))
        else:
            self.events.append((DEPTH | FLAGS[side], how[1], 1.0))

    def play(self, script: Sequence[Sequence[tuple[Any, ...]]]) -> NDArray[np.void]:
        """The events of a snapshot, then of `script`: a list of batches, each a list of changes."""
        first, ends = len(self.events), []
        for batch in [[("snapshot", self.start)], *script]:
            before = len(self.events)
            for change in batch:
                self.change(*change)
            if len(self.events) > before:
                ends.append(len(self.events) - 1 - first)
        made = self.events[first:]
        data = np.zeros(len(made), EVENT_DTYPE)
        data["ev"] = [ev | LOCAL | EXCH for ev, _, _ in made]
        data["ev"][ends] |= np.uint64(BATCH_END)
        data["px"], data["qty"] = [e[1] for e in made], [e[2] for e in made]
        data["exch_ts"] = 1_000_000_000 + 10_000_000 * np.searchsorted(ends, np.arange(len(made)))
        data["local_ts"] = data["exch_ts"] + 1_000_000
        data["ival"] = self.symbol
        return data
