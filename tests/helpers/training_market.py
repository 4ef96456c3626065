"""A book that moves by a tick at a time, for the tests of training."""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import BATCH_END, BUY, DEPTH, EXCH, LOCAL, SELL, TRADE
from tickrt.market.instrument import Instrument
from tickrt.memory.records import EVENT_DTYPE

MS = 1_000_000
INSTRUMENT = Instrument("TEST", 1.0, 1.0, maker_fee=0.0, taker_fee=0.0)


def market(batches: int, seed: int = 0, flip: bool = False) -> np.ndarray:
    """Events of a book that moves, 7 ms a batch; `flip` exchanges bids and asks around 5000."""
    rng = np.random.default_rng(seed)
    rows, centre, old = [], 5000, {}

    def add(kind: int, side: int, tick: int, qty: float, ts: int) -> None:
        if flip:
            side, tick = 1 - side, 10001 - tick
        flag = SELL if side else BUY
        rows.append((kind | flag | LOCAL | EXCH, ts, ts, float(tick), qty))

    for n in range(batches):
        ts = n * 7 * MS + 1
        centre += int(rng.integers(-1, 2))
        new = {(0, centre - i): float(rng.integers(1, 50)) for i in range(12)}
        new |= {(1, centre + 1 + i): float(rng.integers(1, 50)) for i in range(12)}
        for side, tick in old.keys() - new.keys():
            add(DEPTH, side, tick, 0.0, ts)
        for (side, tick), qty in new.items():
            add(DEPTH, side, tick, qty, ts)
        # The aggressor's side is flipped by `add` as well.
        add(TRADE, int(rng.integers(2)), centre, float(rng.integers(1, 9)), ts)
        rows[-1] = (rows[-1][0] | BATCH_END, *rows[-1][1:])
        old = new
    events = np.zeros(len(rows), EVENT_DTYPE)
    for i, name in enumerate(("ev", "exch_ts", "local_ts", "px", "qty")):
        events[name] = [row[i] for row in rows]
    return events
