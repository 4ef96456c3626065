"""What a backtest earned and how: definitions, and nothing else. Pure numpy, tested by hand.

All money is in the account's currency (quote; the coin for inverse contracts). Marks are taken at
whole seconds of local time from the first batch on, at the mid price, plus one at the end.

- `pnl_net`: last mark of equity = cash + marked position − fees. `pnl_gross` = `pnl_net` + `fees`.
- `sharpe`: mean / standard deviation (n − 1) of the differences of equity between whole seconds;
  None where there are fewer than two or they do not vary. `sharpe_annual` = `sharpe` ·
  sqrt(365 · 86400): crypto trades without a pause. It is the Sharpe of money, not of a return on
  capital, and of one session: read the annual figure as a scale, not as a forecast.
- `max_drawdown`: largest fall of equity from an earlier maximum (at first 0), over all marks; ≥ 0.
- `turnover`: traded value, both sides.
- `fill_ratio`: filled lots / lots of the orders sent; None without orders.
- `hit_rate`: share of the closing fills (those that reduce the position) that earned more than
  their fees and the share of the entry fees that they close, against the average entry price
  (harmonic for inverse contracts); None without any.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tickrt.market.instrument import Instrument
from tickrt.runtime.report_types import Metrics

__all__ = ["SECONDS_A_YEAR", "closed_profits", "max_drawdown", "measure", "sharpe"]

SECONDS_A_YEAR = 365 * 86_400


def sharpe(equity: NDArray[np.float64]) -> float | None:
    """Mean over standard deviation of the differences of equity[n]; None where undefined."""
    change = np.diff(equity)
    if len(change) < 2:
        return None
    spread = float(np.std(change, ddof=1))
    if not spread > 1e-12 * max(1e-300, float(np.max(np.abs(change)))):
        return None
    return float(np.mean(change)) / spread


def max_drawdown(equity: NDArray[np.float64]) -> float:
    """Largest fall of equity[n] from an earlier maximum, which is 0 before the first mark."""
    if len(equity) == 0:
        return 0.0
    peak = np.maximum.accumulate(np.maximum(equity, 0.0))
    return float(np.max(peak - equity))


def _worth(instrument: Instrument, lots: int, px: float) -> float:
    """What buying `lots` at `px` adds to equity at price p, up to sign: linear − qty·px, inverse
    + qty/px (the terms of `strategy.kernels.equity`)."""
    amount = lots * instrument.lot_size * instrument.contract_size
    return amount / px if instrument.contract == "inverse" else -amount * px


def closed_profits(fills: NDArray[np.void], instrument: Instrument) -> NDArray[np.float64]:
    """Profit after fees of each fill that reduced the position, against the average entry.

    Args:
        fills: FILL_DTYPE[n] of one strategy, in order.
        instrument: what it traded.

    Returns:
        float64[number of closing fills].
    """
    position, cost, cost_fee = 0, 0.0, 0.0  # of the open position
    profits = []
    for fill in fills:
        side, lots = int(fill["side"]), int(fill["qty_lots"])
        px, fee = int(fill["px_tick"]) * instrument.tick_size, float(fill["fee"])
        closing = min(lots, -side * position) if side * position < 0 else 0
        if closing:
            share = closing / abs(position)
            earned = cost * share + side * _worth(instrument, closing, px)
            profits.append(earned - cost_fee * share - fee * closing / lots)
            cost, cost_fee = cost * (1 - share), cost_fee * (1 - share)
        opening = lots - closing
        cost += side * _worth(instrument, opening, px)
        cost_fee += fee * opening / lots
        position += side * lots
        if position == 0:
            cost = cost_fee = 0.0
    return np.array(profits, np.float64)


def measure(
    marks: NDArray[np.float64],
    fills: NDArray[np.void],
    instrument: Instrument,
    *,
    orders: int,
    order_lots: int,
    turnover: float,
    seconds: float,
) -> Metrics:
    """The figures of one strategy.

    Args:
        marks: float64[n, 4] of whole seconds and, last, the end: equity, fees, position, mid.
        fills: FILL_DTYPE[m] of this strategy, in order.
        instrument: what it traded.
        orders: orders sent to the venue.
        order_lots: their lots.
        turnover: traded value.
        seconds: length of the data.
    """
    equity = marks[:, 0] if len(marks) else np.zeros(1)
    fees = float(marks[-1, 1]) if len(marks) else 0.0
    ratio = sharpe(equity[:-1])  # the last mark is not a whole second after the one before
    profits = closed_profits(fills, instrument)
    filled = int(fills["qty_lots"].sum())
    return Metrics(
        pnl_gross=float(equity[-1]) + fees,
        pnl_net=float(equity[-1]),
        fees=fees,
        sharpe=ratio,
        sharpe_annual=None if ratio is None else ratio * math.sqrt(SECONDS_A_YEAR),
        max_drawdown=max_drawdown(equity),
        turnover=turnover,
        fill_ratio=filled / order_lots if order_lots else None,
        hit_rate=float(np.mean(profits > 0)) if len(profits) else None,
        orders=orders,
        trades=len(fills),
        closing_trades=len(profits),
        maker_trades=int(np.count_nonzero(fills["maker"])),
        final_position=int(marks[-1, 2]) if len(marks) else 0,
        seconds=seconds,
    )
