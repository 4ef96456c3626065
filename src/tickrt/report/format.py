"""Numbers and names as people read them; shared by the page and the terminal table.

Entry points: `number`, `money`, `price`, `share`; `percentile`, which shows a dash where the count
cannot carry it; `headline(report)`, the few figures that matter first; `count_rows`,
`figure_rows`, `strategy_rows`, `engine_rows`, `gpu_rows`, `gpu_sentences`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tickrt.report.svg import duration
from tickrt.runtime.report_types import (
    BacktestFigures,
    Currency,
    EngineFacts,
    GpuUse,
    LatencySummary,
    Report,
)

__all__ = [
    "NONE",
    "PERCENTILES",
    "Tile",
    "carries",
    "count_rows",
    "engine_rows",
    "figure_rows",
    "gpu_rows",
    "gpu_sentences",
    "headline",
    "money",
    "money_unit",
    "number",
    "percentile",
    "price",
    "rate",
    "share",
    "strategy_rows",
    "too_few",
]

NONE = "–"
PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
# So many values leave ten beyond a percentile: with fewer it is little more than the slowest.
_NEEDED = {"p50": 20, "p90": 100, "p99": 1_000, "p999": 10_000}
_DAY_S = 86_400.0
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_WAYS = {"full": "on the whole window", "pre": "with `pre`", "advance": "with `advance`"}
_SPLIT = {
    "pre": "the window is prepared anew after each row",
    "bank": "the states of all positions step together after each row",
    "carry": "states are carried from row to row",
}


@dataclass(frozen=True)
class Tile:
    """One figure with its label; `tone` is ``good``, ``bad`` or empty."""

    value: str
    label: str
    tone: str = ""


def number(value: Any) -> str:
    """A number with thousands separators and about four significant digits."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _minus(f"{value:,}")
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    if size == 0 or 1e-6 <= size < 1e12:
        decimals = max(0, 3 - math.floor(math.log10(size))) if 0 < size < 1000 else 0
        return _minus(f"{value:,.{decimals}f}")
    if not math.isfinite(value):
        return _minus(str(value))
    digits, exponent = f"{value:.2e}".split("e")
    return _minus(f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def money(value: float, currency: Currency) -> str:
    """An amount without its unit: to the satoshi in coin, to the cent in quote currency, finer
    where it would vanish."""
    size = abs(value)
    if currency == "quote" and (size == 0 or size >= 1):
        return _minus(f"{value:,.2f}")
    return _minus(f"{value:,.8f}") if size == 0 or size >= 1e-6 else number(value)


def money_unit(currency: Currency) -> str:
    """What an amount is counted in, in words."""
    return "coin" if currency == "coin" else "quote currency"


def _amount(value: float, currency: Currency) -> str:
    return f"{money(value, currency)} {currency}"


def price(value: float) -> str:
    """A price with all the digits of its tick, and none of a float's."""
    return _minus(f"{value:,.10g}")


def share(value: float | None) -> str:
    """``51.0 %``; three significant digits below one per cent."""
    if value is None:
        return NONE
    per_cent = 100 * value
    return _minus(
        f"{per_cent:.1f} %" if per_cent == 0 or abs(per_cent) >= 1 else f"{per_cent:.3g} %"
    )


def rate(value: float) -> str:
    """How many a second, without the unit: ``5.2 M``."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value / 1e3:.3g} k" if value >= 1e4 else number(round(value))


def carries(count: int, name: str) -> bool:
    """Whether `count` values leave ten beyond the percentile `name` (a key of `PERCENTILES`)."""
    return count >= _NEEDED[name]


def percentile(summary: LatencySummary, name: str) -> str:
    """A percentile of `PERCENTILES`, mean or max, for people; a dash where it means nothing."""
    known = carries(summary.count, name) if name in _NEEDED else summary.count > 0
    return duration(getattr(summary, name)) if known else NONE


def too_few(summaries: list[LatencySummary]) -> str:
    """What the dashes mean, where there are any."""
    dashes = any(not carries(s.count, name) for s in summaries for name in PERCENTILES)
    return f"{NONE}: fewer than ten values lie beyond it" if dashes else ""


def _latency_tiles(report: Report) -> list[Tile]:
    """Tick-to-order; where its count is too small for the tail, the slowest, and the tail of
    tick-to-decision, which every signal has."""
    orders, decisions = (report.latency_us.get(f"tick_to_{s}") for s in ("order", "decision"))
    tiles: list[Tile] = []
    if orders is not None and orders.count:
        tiles = _percentile_tiles(orders, "tick-to-order", ("p50", "p99", "p999"))
        if len(tiles) < 3:
            label = f"tick-to-order, slowest of {number(orders.count)}"
            tiles.append(Tile(duration(orders.max), label))
        if carries(orders.count, "p99"):
            return tiles
    if decisions is None:
        return tiles
    return tiles + _percentile_tiles(decisions, "tick-to-decision", ("p99",))


def _percentile_tiles(summary: LatencySummary, name: str, shown: Sequence[str]) -> list[Tile]:
    return [
        Tile(percentile(summary, p), f"{name} {PERCENTILES[p]}")
        for p in shown
        if carries(summary.count, p)
    ]


def headline(report: Report) -> list[Tile]:
    """What it cost, in figures, most important first."""
    tiles = _latency_tiles(report)
    several = report.backtest_by_strategy or []
    currencies = {figures.currency for figures in several}
    if len(currencies) == 1:
        currency = currencies.pop()
        net, fees = sum(f.pnl_net for f in several), sum(f.fees for f in several)
        unit, tone = money_unit(currency), "good" if net >= 0 else "bad"
        tiles.append(Tile(money(net, currency), f"PnL net, {unit}", tone))
        tiles.append(Tile(money(fees, currency), f"fees, {unit}"))
    tiles.append(Tile(f"{number(report.orders)} / {number(report.fills)}", "orders / fills"))
    if report.kind == "run":
        tiles.append(Tile(rate(report.events_per_s), "events/s"))
    return tiles


def count_rows(report: Report) -> list[tuple[str, str]]:
    """(name, value) of what was counted, and of how long it took."""
    counts = {
        "events": report.events,
        "batches of events": report.batches,
        "rows": report.rows,
        "signals": report.signals,
        "intents": report.intents,
        "orders": report.orders,
        "cancels": report.cancels,
        "fills": report.fills,
        "engine faults": report.faults,
        "ticks that waited": report.waited,
        "fallback decisions": report.fallback_decisions,
        "lost records": report.lost_records,
    }
    times = {
        "time in the loop": report.wall_s,
        "start to first tick": report.startup_s,
        "compiling": report.compile_s,
    }
    rows = [(name, number(value)) for name, value in counts.items()]
    rows.append(("events/s", rate(report.events_per_s)))
    return rows + [(name, duration(value * 1e6)) for name, value in times.items()]


def figure_rows(figures: BacktestFigures, inferences: int) -> list[tuple[str, str]]:
    """(name, value) of what a strategy earned; `inferences` were charged."""
    f, charged = figures, figures.inference_latency_us

    def amount(value: float) -> str:
        return _amount(value, f.currency)

    def latency(name: str, value: float | None) -> str:
        one_value = charged.p50 == charged.p99
        return duration(value) if one_value or carries(inferences, name) else NONE

    return [
        ("PnL gross", amount(f.pnl_gross)),
        ("fees", amount(f.fees)),
        ("PnL net", amount(f.pnl_net)),
        ("max drawdown", amount(f.max_drawdown)),
        ("turnover", amount(f.turnover)),
        ("Sharpe of 1 s marks", number(f.sharpe)),
        ("Sharpe, annualised", number(f.sharpe_annual))
        if f.seconds >= _DAY_S
        else ("annualised (needs a day)", NONE),
        ("orders filled", share(f.fill_ratio)),
        ("hit rate of closing fills", f"{share(f.hit_rate)} of {number(f.closing_trades)}"),
        ("orders", number(f.orders)),
        ("fills", number(f.trades)),
        ("maker fills", number(f.maker_trades)),
        ("final position", f"{number(f.final_position)} lots"),
        ("length of the data", duration(f.seconds * 1e6)),
        ("inference charged, p50", latency("p50", charged.p50)),
        ("inference charged, p99", latency("p99", charged.p99)),
    ]


def strategy_rows(report: Report) -> list[tuple[str, ...]]:
    """A heading, then (name, one value per strategy) of what they earned; nothing for a run."""
    several = report.backtest_by_strategy or []
    if not several:
        return []
    columns = [figure_rows(figures, report.signals) for figures in several]
    names = [name for name, _ in columns[0]]
    values = [[value for _, value in column] for column in columns]
    heading = ("result", *(f"{f.strategy} · {f.symbol}" for f in several))
    return [heading, *zip(names, *values, strict=True)]


def engine_rows(engine: EngineFacts) -> list[tuple[str, str]]:
    """(name, value) of what an engine says of itself."""
    rows = [("backend", " ".join(filter(None, (engine.backend, engine.version))))]
    rows.append(("model", engine.model or ""))
    rows.append(("model's SHA-256", engine.model_sha256 or ""))
    if engine.threads is not None:
        rows.append(("threads", number(engine.threads)))
    if engine.split is not None:
        rows.append(("off the path", _SPLIT.get(engine.split, engine.split)))
    if engine.on_path_share is not None:
        rows.append(("left on the path", f"{share(engine.on_path_share)} of the multiplications"))
    if engine.split_error is not None:
        rows.append(("split against whole", f"at most {number(engine.split_error)} relative"))
    for way, value in (engine.rows_per_s or {}).items():
        rows.append((f"sustains {_WAYS.get(way, way)}", f"{rate(value)} rows/s"))
    if engine.waits is not None:
        rows.append(("prepared on the path", f"{number(engine.waits)} rows"))
    if engine.signal is not None:
        rows.append(("always answers", " / ".join(map(number, engine.signal))))
    rows += [(name.replace("_", " "), number(v)) for name, v in (engine.details or {}).items()]
    return [(name, value) for name, value in rows if value]


def gpu_rows(use: GpuUse) -> list[tuple[str, ...]]:
    """A heading, then (figure, min, median, max) of each GPU; without samples the heading alone."""
    rows: list[tuple[str, ...]] = [("GPU", "min", "median", "max")]
    for gpu in use.gpus:
        for f in gpu.figures:
            name = f.name if len(use.gpus) == 1 else f"{gpu.bus} {f.name}"
            values = (int(v) if v.is_integer() else v for v in (f.min, f.median, f.max))
            rows.append((name, *(f"{number(v)} {f.unit}" for v in values)))
    return rows


def gpu_sentences(use: GpuUse) -> list[str]:
    """Which GPUs they were, what held them back, what could not be read."""
    sentences = []
    for gpu in use.gpus:
        memory = "" if gpu.memory_mib is None else f", {number(gpu.memory_mib)} MiB"
        held = [f"{why} in {share(part)} of the samples" for why, part in gpu.throttled.items()]
        known = "throttle reasons" not in gpu.missing
        told = f"held back by {', '.join(held)}" if held else "never held back" if known else ""
        text = f"{gpu.name} at {gpu.bus}{memory}, driver {gpu.driver}"
        sentences.append("; ".join(filter(None, (text, told))))
        sentences += [f"{name}: not given: {why}" for name, why in gpu.missing.items()]
    sentences.append(f"Read {number(use.samples)} times beside the loop.")
    if use.problem is not None:
        sentences.append(f"The GPU could not be read: {use.problem}")
    return sentences
