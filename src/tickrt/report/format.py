"""Numbers and names as people read them; shared by the page and the terminal table.

Entry points: `number`; `headline(report)`, the few figures that matter first;
`metric_rows(report)`, `strategy_rows(report)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tickrt.report.svg import duration

__all__ = ["Tile", "headline", "label", "metric_rows", "number", "strategy_rows"]

_LABELS = {
    "pnl_gross": "PnL gross",
    "pnl_net": "PnL net",
    "fees": "fees",
    "sharpe": "Sharpe of 1 s marks",
    "sharpe_annual": "Sharpe, annualised",
    "max_drawdown": "max drawdown",
    "waited": "ticks that waited",
    "fill_ratio": "fill ratio",
    "hit_rate": "hit rate",
    "events_per_s": "events/s",
    "seconds": "length",
    "wall_s": "time in the loop",
    "compile_s": "compiling",
    "startup_s": "start to first tick",
}
_SHARES = {"fill_ratio", "hit_rate"}
_COUNTS = (
    "events",
    "batches",
    "rows",
    "signals",
    "intents",
    "orders",
    "cancels",
    "fills",
    "faults",
    "waited",
    "fallback_decisions",
)


@dataclass(frozen=True)
class Tile:
    """One figure with its label; `tone` is ``good``, ``bad`` or empty."""

    value: str
    label: str
    tone: str = ""


def label(key: str) -> str:
    """A metric's name for people."""
    return _LABELS.get(key) or key.removesuffix("_us").removesuffix("_s").replace("_", " ")


def number(value: Any) -> str:
    """A number with thousands separators and about four significant digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    if size == 0 or 1e-6 <= size < 1e12:
        decimals = max(0, 3 - math.floor(math.log10(size))) if 0 < size < 1000 else 0
        shown = f"{value:,.{decimals}f}"
    else:
        shown = f"{value:.3g}"
    return shown.replace("-", "\N{MINUS SIGN}")


def _rate(value: float) -> str:
    """Events per second: ``5.2 M``."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value / 1e3:.3g} k" if value >= 1e4 else number(round(value))


def _metric(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key == "seconds":
        return duration(float(value) * 1e6)
    if key.endswith("_us"):
        return duration(float(value))
    if key.endswith("_s") and key != "events_per_s":
        return duration(float(value) * 1e6)
    if key in _SHARES:
        return f"{float(value):.1%}"
    return number(value)


def headline(report: Mapping[str, Any]) -> list[Tile]:
    """The figures for the top of the page, most important first."""
    tiles = []
    latency = (report.get("latency_us") or {}).get("tick_to_order") or {}
    if latency.get("count"):
        for name, shown in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")):
            tiles.append(Tile(duration(latency.get(name)), f"tick-to-order {shown}"))
    if report.get("events_per_s"):
        tiles.append(Tile(_rate(float(report["events_per_s"])), "events/s"))
    if report.get("orders") is not None:
        tiles.append(Tile(number(report["orders"]), "orders"))
    if report.get("fills") is not None:
        tiles.append(Tile(number(report["fills"]), "fills"))
    several = report.get("backtest_by_strategy") or [report.get("backtest") or {}]
    units = {figures.get("currency", "") for figures in several}
    pnls = [figures.get("pnl_net") for figures in several]
    if len(units) == 1 and None not in pnls:
        unit, pnl = units.pop(), sum(pnls)
        name = f"PnL net, {unit}" if unit else "PnL net"
        shown = number(pnl) if abs(pnl) >= 1 else f"{pnl:.3g}".replace("-", "\N{MINUS SIGN}")
        tiles.append(Tile(shown, name, "good" if pnl >= 0 else "bad"))
    return tiles


def metric_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the counts, times and backtest metrics that the report holds."""
    rows = [(label(k), _metric(k, report[k])) for k in _COUNTS if report.get(k) is not None]
    for key in ("wall_s", "events_per_s", "startup_s", "compile_s"):
        if report.get(key) is not None:
            rows.append((label(key), _metric(key, report[key])))
    for key, count in (report.get("mode_changes") or {}).items():
        rows.append((f"to {label(key)}", number(count)))
    if len(report.get("backtest_by_strategy") or []) <= 1:
        rows += _figures(report.get("backtest") or {})
    return rows


def _figures(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A backtest's metrics; a nested mapping becomes one row per entry, in the same unit."""
    rows = []
    for key, value in figures.items():
        if isinstance(value, Mapping):
            rows += [(f"{label(key)} {name}", _metric(key, v)) for name, v in value.items()]
        elif not isinstance(value, list):
            rows.append((label(key), _metric(key, value)))
    return rows


def strategy_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(metric, one value per strategy), where a backtest ran several; else nothing."""
    columns = [dict(_figures(f)) for f in report.get("backtest_by_strategy") or []]
    if len(columns) < 2:
        return []
    return [(name, *(column.get(name, "–") for column in columns)) for name in columns[0]]
