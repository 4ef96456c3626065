"""The report's charts: each function takes a piece of the report and returns an SVG string.

Entry points: `latency_bars`, `latency_cdf`, `price`, `signal`, `curve` (equity), `position`,
`reject_bars`. An empty string means that there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from tickrt.report.format import PERCENTILES, carries
from tickrt.report.format import price as price_text
from tickrt.report.svg import (
    Linear,
    Log,
    Nines,
    Plot,
    area,
    duration,
    gaps,
    polyline,
    steps,
    text,
)
from tickrt.runtime.report_types import FillRow, LatencySummary, Series

__all__ = [
    "curve",
    "latency_bars",
    "latency_cdf",
    "ordered_stages",
    "position",
    "price",
    "reject_bars",
    "signal",
    "stage_name",
]

WIDTH = 1040
STAGES = ("tick_to_order", "book", "features", "engine", "decision")
MAX_MARKERS = 1500
_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def stage_name(stage: str) -> str:
    """``tick_to_order`` as people write it: tick-to-order."""
    return stage.replace("_", "-" if stage.startswith("tick_to_") else " ")


def ordered_stages(latency: Mapping[str, LatencySummary]) -> list[str]:
    """The stages that took any time, tick-to-order first, then in the order of the path."""
    known = [s for s in STAGES if s in latency]
    stages = known + [s for s in latency if s not in STAGES]
    return [s for s in stages if latency[s].count and latency[s].max]


def _log_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around the positive `values`, at least one decade."""
    positive = [v for v in values if v > 0] or [1.0]
    low = math.floor(math.log10(min(positive)) + 1e-9)
    high = math.ceil(math.log10(max(positive)) - 1e-9)
    return 10.0**low, 10.0 ** max(high, low + 1)


def _bar(x: float, y: float, width: float, height: float, css: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
        f'class="{css}"><title>{escape(title)}</title></rect>'
    )


def latency_bars(latency: Mapping[str, LatencySummary], floor_us: float | None) -> str:
    """One bar per stage on a log axis: to p50, on to p99, on to p99.9, as far as the count
    carries; a dot at the maximum."""
    stages = ordered_stages(latency)
    if not stages:
        return ""
    values = [value for s in stages for value in (latency[s].p50, latency[s].max)]
    low, high = _log_bounds([v for v in values if v])
    plot = Plot(WIDTH, 50 + 44 * len(stages), left=120, right=24)
    x = Log(low / 10 if min(values) <= low * 1.5 else low, high, *plot.x_range)
    plot.x_axis(x)
    _floor_line(plot, x, floor_us)
    for row, stage in enumerate(stages):
        y = plot.top + 44 * row + 8
        plot.add(text(plot.left - 12, y + 18, stage_name(stage), "label", "end"))
        _stage_bar(plot, x, y, stage, latency[stage])
    return plot.svg("Latency percentiles by stage")


def _stage_bar(plot: Plot, x: Log, y: float, stage: str, summary: LatencySummary) -> None:
    edge = plot.left
    shown = [name for name in ("p50", "p99", "p999") if carries(summary.count, name)]
    for name in shown:
        value = getattr(summary, name)
        end = x(value)
        tip = f"{stage_name(stage)} {PERCENTILES[name]}: {duration(value)}"
        plot.add(_bar(edge, y, end - edge, 26, f"bar {name}", tip))
        edge = max(edge, end)
    tip = f"{stage_name(stage)} max: {duration(summary.max)}"
    plot.add(
        f'<circle cx="{x(summary.max):.1f}" cy="{y + 13:.1f}" r="4" class="max">'
        f"<title>{escape(tip)}</title></circle>"
    )
    if shown:
        plot.add(text(plot.left + 8, y + 17.5, duration(summary.p50), "inside"))


def _floor_line(plot: Plot, x: Log, floor_us: float | None) -> None:
    """Where two clock reads in a row lie: nothing here can be shorter."""
    if not floor_us or not x.lo < floor_us < x.hi:
        return
    low, high = plot.y_range
    at = x(floor_us)
    plot.line(at, low, at, high, "floor")
    plot.add(text(at + 4, low - 4, f"clock read {duration(floor_us)}", "tick"))


def latency_cdf(
    cdf: Mapping[str, Sequence[tuple[float, float]]], latency: Mapping[str, LatencySummary]
) -> str:
    """Share of times at or below a latency: log µs against nines. Each stage of `latency`
    (more than ten values each) is drawn as far as ten of its values lie beyond."""
    if not latency:
        return ""
    carried = {stage: 1 - 10 / summary.count for stage, summary in latency.items()}
    drawn = {
        stage: [point for point in cdf[stage] if point[1] <= share] or [cdf[stage][0]]
        for stage, share in carried.items()
    }
    low, high = _log_bounds([us for points in drawn.values() for us, _ in points if us > 0])
    plot = Plot(WIDTH, 330, left=72, right=24, bottom=28)
    nines = min(max(-math.log10(1 - max(carried.values())), 1.0), 5.0)
    x, y = Log(low, high, *plot.x_range), Nines(*plot.y_range, nines=nines)
    bottom, top = plot.y_range
    for value in x.minor():
        plot.line(x(value), bottom, x(value), top, "grid minor")
    plot.x_axis(x)
    plot.y_axis(y)
    for number, (stage, points) in reversed(list(enumerate(drawn.items()))):
        line = [(x(points[0][0]), y(0.0))]
        line += [(x(us), y(min(share, carried[stage]))) for us, share in points]
        plot.add(steps(line, f"s{number % 8} {'strong' if stage == 'tick_to_order' else ''}"))
    return plot.svg("Cumulative distribution of latency by stage")


def _clock(t_ns: Sequence[int], plot: Plot) -> Linear:
    """A time axis in seconds of the day (UTC) for `t_ns`."""
    day = t_ns[0] // 86_400_000_000_000 * 86_400
    start, stop = (t_ns[0] / 1e9) - day, (t_ns[-1] / 1e9) - day
    span = max(stop - start, 1e-6)
    step = next((float(s) for s in _TIME_STEPS_S if span / s <= 8), span / 6)
    if span < 4:
        return Linear(start, stop, *plot.x_range, count=6)

    def label(seconds: float, _step: float) -> str:
        return datetime.fromtimestamp(day + seconds, UTC).strftime("%H:%M:%S")

    return Linear(start, stop, *plot.x_range, label=label, step=step)


def _time_points(t_ns: Sequence[int], axis: Linear) -> list[float]:
    day = t_ns[0] // 86_400_000_000_000 * 86_400
    return [axis(t / 1e9 - day) for t in t_ns]


def _padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * share or max(abs(high) * 1e-6, 1e-9)
    return low - pad, high + pad


def _present(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def price(series: Series, fills: Sequence[FillRow]) -> str:
    """The mid price with a triangle at each fill: up for a buy, down for a sell."""
    t_ns, mid = series.t_ns, series.mid
    if len(t_ns) < 2 or not _present(mid):
        return ""
    plot = Plot(WIDTH, 300, left=84, right=34)
    inside = [f for f in fills if t_ns[0] <= f.t_ns <= t_ns[-1]]
    shown = inside[:: max(1, -(-len(inside) // MAX_MARKERS))]
    x = _clock(t_ns, plot)
    y = Linear(*_padded(_present(mid) + [f.px for f in shown]), *plot.y_range)
    plot.x_axis(x)
    plot.y_axis(y)
    runs = gaps(_time_points(t_ns, x), mid)
    plot.add(*[polyline([(px, y(v)) for px, v in run], "mid") for run in runs])
    day = t_ns[0] // 86_400_000_000_000 * 86_400
    unit = "contracts" if series.currency == "coin" else "units"
    for fill in shown:
        plot.add(_marker(x(fill.t_ns / 1e9 - day), y(fill.px), fill, unit))
    return plot.svg("Mid price with fills")


def _marker(x: float, y: float, fill: FillRow, unit: str) -> str:
    buy = fill.side > 0
    tip = f"{'bought' if buy else 'sold'} {price_text(fill.qty)} {unit} at {price_text(fill.px)}"
    tip += " (maker)" if fill.maker else ""
    a, b = (4.5, -4.5) if buy else (-4.5, 4.5)
    return (
        f'<path class="{"buy" if buy else "sell"}" d="M{x:.1f} {y + b:.1f}'
        f'L{x - 4.5:.1f} {y + a:.1f}L{x + 4.5:.1f} {y + a:.1f}Z"><title>{tip}</title></path>'
    )


def signal(series: Series) -> str:
    """p(up) − p(down) over time: above the line the model leans up, below it down."""
    t_ns, both = series.t_ns, zip(series.p_up, series.p_down, strict=True)
    lean = [None if up is None or down is None else up - down for up, down in both]
    if len(t_ns) < 2 or not _present(lean):
        return ""
    plot = Plot(WIDTH, 120, left=84, right=34)
    reach = max(max(abs(v) for v in _present(lean)), 1e-3)
    x = _clock(t_ns, plot)
    y = Linear(-reach, reach, *plot.y_range, count=4)
    plot.x_axis(x)
    plot.y_axis(y)
    for run in gaps(_time_points(t_ns, x), lean):
        plot.add(area([(px, y(max(v, 0.0))) for px, v in run], y(0), "up"))
        plot.add(area([(px, y(min(v, 0.0))) for px, v in run], y(0), "down"))
    plot.line(plot.left, y(0), plot.width - plot.right, y(0), "zero")
    return plot.svg("Signal: probability of up minus probability of down")


def curve(series: Series) -> str:
    """Equity over time, net with its area; gross as a second line where it is known."""
    t_ns, net = series.t_ns, series.equity
    if len(t_ns) < 2 or not _present(net):
        return ""
    gross = series.equity_gross or []
    plot = Plot(WIDTH, 220, left=84, right=34)
    x = _clock(t_ns, plot)
    low, high = _padded([*_present(net), *_present(gross), 0.0])
    y = Linear(low, high, *plot.y_range)
    plot.x_axis(x)
    plot.y_axis(y)
    at = _time_points(t_ns, x)
    for run in gaps(at, gross):
        plot.add(polyline([(px, y(v)) for px, v in run], "gross"))
    for run in gaps(at, net):
        points = [(px, y(v)) for px, v in run]
        plot.add(area(points, y(0), "equity"), polyline(points, "equity"))
    plot.line(plot.left, y(0), plot.width - plot.right, y(0), "zero")
    return plot.svg("Equity")


def position(series: Series) -> str:
    """Position over time as a staircase around zero."""
    t_ns, held = series.t_ns, series.position
    if len(t_ns) < 2 or not any(held):
        return ""
    plot = Plot(WIDTH, 130, left=84, right=34)
    x = _clock(t_ns, plot)
    low, high = min([0.0, *held]), max([0.0, *held])
    y = Linear(*_padded([low, high], 0.1), *plot.y_range, count=3)
    plot.x_axis(x)
    plot.y_axis(y)
    for run in gaps(_time_points(t_ns, x), held):
        points = [(px, y(v)) for px, v in run]
        plot.add(area(points, y(0), "position", staircase=True), steps(points, "position"))
    plot.line(plot.left, y(0), plot.width - plot.right, y(0), "zero")
    return plot.svg("Position")


def reject_bars(rejects: Mapping[str, int], name: Callable[[str], str] = str) -> str:
    """Intents that risk refused, by reason, most frequent first."""
    rows = sorted(((n, r) for r, n in rejects.items() if n), reverse=True)
    if not rows:
        return ""
    plot = Plot(WIDTH / 2 - 10, 8 + 26 * len(rows), left=170, right=70, top=4, bottom=4)
    left, right = plot.x_range
    most = rows[0][0]
    for i, (count, reason) in enumerate(rows):
        y = plot.top + 26 * i
        width = (right - left) * count / most
        plot.add(text(left - 10, y + 16, name(reason), "label", "end"))
        plot.add(_bar(left, y + 3, max(width, 2), 18, "bar reject", f"{reason}: {count:,}"))
        plot.add(text(left + max(width, 2) + 8, y + 16, f"{count:,}", "tick"))
    return plot.svg("Intents refused by risk, by reason")
