"""The few SVG pieces that the report's charts are made of: scales, ticks, paths, axes.

Entry points: `Linear`, `Log`, `Nines` (scales from values to pixels), `polyline`, `steps`, `area`,
`text`, `Plot`. Colours and fonts are classes, styled by the page's style sheet, so that one drawing
serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Protocol

__all__ = ["Linear", "Log", "Nines", "Plot", "Scale", "area", "gaps", "polyline", "steps", "text"]

Value = float | int | None
Point = tuple[float, float]


class Scale(Protocol):
    """Maps a value to a pixel, and knows where its ticks go."""

    def __call__(self, value: float) -> float: ...
    def ticks(self) -> list[tuple[float, str]]: ...


def _fixed(value: float, step: float) -> str:
    """`value` with as many decimals as `step` needs, and a proper minus sign."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Linear:
    """Linear from [lo, hi] to [start, stop]; roughly `count` ticks at 1, 2 or 5 × 10^n."""

    lo: float
    hi: float
    start: float
    stop: float
    count: int = 5
    label: Callable[[float, float], str] = _fixed
    step: float | None = None

    def __call__(self, value: float) -> float:
        span = (self.hi - self.lo) or 1.0
        return self.start + (value - self.lo) / span * (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        span = (self.hi - self.lo) or 1.0
        step = self.step
        if step is None:
            raw = span / self.count
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.7)
        first = math.ceil(self.lo / step - 1e-9)
        last = math.floor(self.hi / step + 1e-9)
        return [(i * step, self.label(i * step, step)) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Log:
    """Logarithmic microseconds from [lo, hi] to [start, stop]; ticks at powers of ten."""

    lo: float
    hi: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        low, high = math.log10(self.lo), math.log10(self.hi)
        position = (math.log10(max(value, self.lo)) - low) / ((high - low) or 1.0)
        return self.start + min(position, 1.0) * (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        first = math.ceil(math.log10(self.lo) - 1e-9)
        last = math.floor(math.log10(self.hi) + 1e-9)
        return [(10.0**e, duration(10.0**e)) for e in range(first, last + 1)]

    def minor(self) -> list[float]:
        """2 … 9 times each power of ten, inside the range."""
        first = math.floor(math.log10(self.lo))
        last = math.ceil(math.log10(self.hi))
        values = [m * 10.0**e for e in range(first, last) for m in range(2, 10)]
        return [v for v in values if self.lo <= v <= self.hi]


@dataclass(frozen=True)
class Nines:
    """A share on the scale of its tail: 90 %, 99 %, 99.9 % … are equally far apart."""

    start: float
    stop: float
    nines: float = 5.0

    def __call__(self, value: float) -> float:
        depth = -math.log10(max(1.0 - value, 10.0**-self.nines))
        return self.start + depth / self.nines * (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        shares = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
        shares += [(0.9999, "99.99 %"), (0.99999, "99.999 %")]
        return [(share, label) for share, label in shares if 1 - share >= 10.0**-self.nines * 0.99]


def duration(us: float | None) -> str:
    """Microseconds for people: ``83 ns``, ``1.25 µs``, ``6.8 ms``, ``2.0 s``."""
    if us is None:
        return "–"
    for limit, factor, unit in ((0.9995, 1e3, "ns"), (999.5, 1.0, "µs"), (999.5e3, 1e-3, "ms")):
        if us < limit:
            return f"{_three(us * factor)} {unit}"
    return f"{_three(us * 1e-6)} s"


def _three(value: float) -> str:
    """Three significant digits, without an exponent or trailing zeros after a point."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, label: str, css: str = "", anchor: str = "start") -> str:
    """A line of text; `label` is escaped."""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" class="{css}" text-anchor="{anchor}">{escape(label)}</text>'
    )


def gaps(xs: Sequence[float], ys: Sequence[Value]) -> list[list[Point]]:
    """The runs of points whose value is there."""
    runs: list[list[Point]] = [[]]
    for x, y in zip(xs, ys, strict=False):
        if y is None:
            if runs[-1]:
                runs.append([])
        else:
            runs[-1].append((x, float(y)))
    return [run for run in runs if run]


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _stepped(points: Sequence[Point]) -> list[Point]:
    out = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        if y != before:
            out.append((x, before))
        out.append((x, y))
    return out


def polyline(points: Sequence[Point], css: str) -> str:
    """A line through `points` (pixels)."""
    return f'<path class="line {css}" d="{_path(points)}"/>' if points else ""


def steps(points: Sequence[Point], css: str) -> str:
    """A staircase through `points` (pixels): each value holds until the next."""
    return polyline(_stepped(points), css) if points else ""


def area(points: Sequence[Point], base: float, css: str, *, staircase: bool = False) -> str:
    """The surface between `points` and the horizontal line at `base` (pixels)."""
    if not points:
        return ""
    line = _stepped(points) if staircase else points
    return (
        f'<path class="area {css}" d="{_path(line)}'
        f'L{_n(line[-1][0])} {_n(base)}L{_n(line[0][0])} {_n(base)}Z"/>'
    )


@dataclass
class Plot:
    """A drawing with margins, grid lines and axis labels; `parts` grow in drawing order."""

    width: float
    height: float
    left: float = 64
    right: float = 16
    top: float = 10
    bottom: float = 26
    parts: list[str] = field(default_factory=list)

    @property
    def x_range(self) -> tuple[float, float]:
        return self.left, self.width - self.right

    @property
    def y_range(self) -> tuple[float, float]:
        """(bottom, top) in pixels: small values are low."""
        return self.height - self.bottom, self.top

    def add(self, *parts: str) -> None:
        self.parts.extend(parts)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self.add(f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{css}"/>')

    def x_axis(self, scale: Scale, *, labels: bool = True) -> None:
        low, high = self.y_range
        for value, label in scale.ticks():
            x = scale(value)
            self.line(x, low, x, high, "grid")
            if labels:
                self.add(text(x, low + 17, label, "tick", "middle"))

    def y_axis(self, scale: Scale) -> None:
        left, right = self.x_range
        for value, label in scale.ticks():
            y = scale(value)
            self.line(left, y, right, y, "grid")
            self.add(text(left - 8, y + 4, label, "tick", "end"))

    def svg(self, title: str) -> str:
        """The whole drawing; `title` is what a screen reader says."""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" '
            f'aria-label="{escape(title)}">{"".join(self.parts)}</svg>'
        )
