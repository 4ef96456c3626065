"""A small book, strategies and their orders, for the tests of strategy and execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import BUY, DEPTH, GTC, NEW, SELL
from tickrt.execution.kernels import on_sent
from tickrt.execution.orders import Orders, new_orders
from tickrt.market.book import Book, new_book
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.market.kernels import apply_event
from tickrt.memory.records import INTENT_DTYPE
from tickrt.risk.limits import Risk, RiskLimits, new_risk
from tickrt.strategy.kernels import decide
from tickrt.strategy.params import FallbackParams, Params, TakerParams
from tickrt.strategy.state import Mode, Strategies, StrategyConfig, new_intents, new_strategies

LINEAR = Instrument("LIN", 0.5, 1.0, "linear", 1.0, -0.0001, 0.0004)
INVERSE = KNOWN["BTCUSD_PERP"]
LEVELS = (
    (BUY, 1000, 5.0),
    (BUY, 999, 3.0),
    (SELL, 1002, 4.0),
    (SELL, 1003, 2.0),
    (SELL, 1006, 50.0),
)


@dataclass
class Desk:
    """One strategy with a book of its own; prices in ticks."""

    book: Book
    st: Strategies
    orders: Orders
    risk: Risk
    out: NDArray[np.void]
    now: int = 1_000_000_000
    seq: int = 1

    def level(self, side: int, tick: int, qty: float) -> None:
        """Set a level."""
        px = tick / self.book.inv_tick[0]
        assert apply_event(self.book, 0, DEPTH | side, px, qty, self.now) == 0

    def decide(self, signal: float) -> NDArray[np.void]:
        """What the policy wants on a signal p(up) − p(down)."""
        up, down = max(signal, 0.0), max(-signal, 0.0)
        n = decide(
            self.st, 0, self.book, 0, self.orders, np.array([down, 1.0 - up - down, up]), self.seq,
            self.now, self.out,
        )  # fmt: skip
        return self.out[:n].copy()

    def send(self, intents: NDArray[np.void]) -> list[int]:
        """Enter intents in the orders table."""
        return [int(on_sent(self.orders, 0, intents, i)) for i in range(len(intents))]


def desk(
    params: Params | None = None,
    *,
    instrument: Instrument = LINEAR,
    limits: RiskLimits | None = None,
    levels: tuple[tuple[int, int, float], ...] = LEVELS,
    fallback: FallbackParams | None = None,
    mode: Mode = Mode.LIVE,
) -> Desk:
    """A desk with one strategy: best bid 1000, best ask 1002."""
    config = StrategyConfig(
        instrument,
        params=params or TakerParams(),
        fallback=fallback or FallbackParams(),
        mode=mode,
    )
    made = Desk(
        book=new_book([instrument.tick_size], ladder_ticks=1 << 13),
        st=new_strategies([config]),
        orders=new_orders(1),
        risk=new_risk([limits or RiskLimits()]),
        out=new_intents(),
    )
    for side, tick, qty in levels:
        made.level(side, tick, qty)
    return made


def intent(order_id: int = 1, side: int = 1, px: int = 1000, qty: int = 2, **more: Any) -> Any:
    """INTENT_DTYPE[1] of a new order."""
    record = np.zeros(1, INTENT_DTYPE)
    values = {"order_id": order_id, "side": side, "px_tick": px, "qty_lots": qty, "kind": NEW}
    for name, value in {**values, "tif": GTC, "signal": 0.5, **more}.items():
        record[name] = value
    return record
