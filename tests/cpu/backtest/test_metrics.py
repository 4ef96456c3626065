"""The figures of a backtest on cases that can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tickrt.backtest.metrics import (
    SECONDS_A_YEAR,
    closed_profits,
    max_drawdown,
    measure,
    sharpe,
)
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import FILL_DTYPE

LINEAR = Instrument("LIN", 1.0, 1.0)
INVERSE = KNOWN["BTCUSD_PERP"]


def fills(*rows: tuple[int, int, int, float], maker: int = 0) -> Any:
    """FILL_DTYPE records of (side, lots, price in ticks, fee)."""
    made = np.zeros(len(rows), FILL_DTYPE)
    for record, (side, lots, px, fee) in zip(made, rows, strict=True):
        record["side"], record["qty_lots"], record["px_tick"], record["fee"] = side, lots, px, fee
        record["maker"] = maker
    return made


def test_sharpe_is_mean_over_deviation_of_the_differences() -> None:
    equity = np.array([0.0, 1.0, 3.0, 3.0, 6.0])  # differences 1, 2, 0, 3
    assert sharpe(equity) == pytest.approx(1.5 / math.sqrt(5 / 3))


@pytest.mark.parametrize("equity", [[], [1.0], [1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
def test_sharpe_is_undefined_where_nothing_varies(equity: list[float]) -> None:
    assert sharpe(np.array(equity)) is None


@pytest.mark.parametrize(
    ("equity", "fall"),
    [
        ([], 0.0),
        ([0.0, 1.0, 2.0], 0.0),
        ([0.0, -3.0, 1.0], 3.0),  # it began with nothing lost
        ([0.0, 5.0, 2.0, 6.0, 1.0, 4.0], 5.0),
    ],
)
def test_drawdown_is_the_largest_fall_from_a_maximum(equity: list[float], fall: float) -> None:
    assert max_drawdown(np.array(equity)) == fall


def test_closing_fills_earn_against_the_average_entry_after_fees() -> None:
    made = fills(
        (1, 1, 100, 0.1),
        (1, 3, 104, 0.3),  # long 4 at 103, entry fees 0.4
        (-1, 2, 105, 0.2),  # earns 2 · 2 − 0.2 − 0.2
        (-1, 5, 102, 0.5),  # closes 2 at −1 each, entry fees 0.2, 2/5 of its fee; short 3
        (1, 3, 102, 0.0),  # closes at the entry price, pays 3/5 of 0.5
    )
    assert closed_profits(made, LINEAR) == pytest.approx([3.6, -2.4, -0.3])


def test_inverse_contracts_earn_in_coin() -> None:
    made = fills((-1, 10, 500_000, 0.0), (1, 10, 400_000, 0.0))  # short at 50,000, out at 40,000
    assert closed_profits(made, INVERSE) == pytest.approx([1000 / 40_000 - 1000 / 50_000])


def test_all_figures_together() -> None:
    made = fills((1, 2, 100, 0.5), (-1, 1, 110, 0.5), maker=1)
    marks = np.array(
        [
            [0.0, 0.0, 0, 100.0],
            [-0.5, 0.5, 2, 100.0],
            [4.0, 1.0, 1, 107.0],
            [2.0, 1.0, 1, 105.0],
            [7.0, 1.0, 1, 110.0],  # the end, not on a whole second
        ]
    )
    figures = measure(marks, made, LINEAR, orders=3, order_lots=4, turnover=310.0, seconds=3.5)
    ratio = sharpe(np.array([0.0, -0.5, 4.0, 2.0]))
    assert ratio is not None
    assert asdict(figures) == {
        "pnl_gross": 8.0,
        "pnl_net": 7.0,
        "fees": 1.0,
        "sharpe": ratio,
        "sharpe_annual": ratio * math.sqrt(SECONDS_A_YEAR),
        "max_drawdown": 2.0,
        "turnover": 310.0,
        "fill_ratio": 0.75,
        "hit_rate": 1.0,
        "orders": 3,
        "trades": 2,
        "closing_trades": 1,
        "maker_trades": 2,
        "final_position": 1,
        "seconds": 3.5,
    }


def test_without_a_trade_ratios_are_undefined() -> None:
    figures = measure(
        np.zeros((5, 4)),
        np.zeros(0, FILL_DTYPE),
        LINEAR,
        orders=0,
        order_lots=0,
        turnover=0.0,
        seconds=4.0,
    )
    assert (figures.fill_ratio, figures.hit_rate, figures.sharpe) == (None, None, None)
    assert figures.pnl_net == 0.0
