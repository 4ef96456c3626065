"""Feature rows in plain numpy from whole books: what the compiled program is compared with."""

from __future__ import annotations

import math

import numpy as np

from tickrt.feature.spec import Column, FeatureSpec


def _log(x: float, column: Column) -> float:
    x = x / column.unit
    return math.copysign(math.log1p(abs(x)), x) if column.log else x


def _side(levels: dict[int, float], side: int, depth: int) -> list[tuple[int, float]]:
    best = sorted(levels, reverse=side == 0)[:depth]
    out = [(tick, levels[tick]) for tick in best]
    while len(out) < depth:
        out.append((out[-1][0] + (1 if side else -1), 0.0))
    return out


class Reference:
    """Rows of one stream; `bids` and `asks` map ticks to quantities."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.reset()

    def reset(self) -> None:
        self.mids: list[float] = []
        self.before: tuple[list, list] | None = None
        self.last_ns = 0
        self.clear_volume()

    def clear_volume(self) -> None:
        self.signed = self.unsigned = 0.0

    def trade(self, sign: int, qty: float) -> None:
        self.signed += sign * qty
        self.unsigned += qty

    def row(self, bids: dict[int, float], asks: dict[int, float], ts_ns: int) -> np.ndarray:
        books = [_side(bids, 0, 100), _side(asks, 1, 100)]
        mid = (books[0][0][0] + books[1][0][0]) / 2
        raw = [x for c in self.spec.columns for x in self._column(c, books, mid, ts_ns)]
        self.mids.append(mid)
        self.before = (books[0], books[1])
        self.last_ns = ts_ns
        self.clear_volume()
        x = (np.array(raw) - self.spec.mean) / self.spec.std
        return np.clip(x, -self.spec.clip, self.spec.clip)

    def _column(self, c: Column, books: list, mid: float, ts_ns: int) -> list[float]:
        (bid, bid_qty), (ask, ask_qty) = books[0][0], books[1][0]
        if c.kind == "levels":
            sides = [books[0][: c.depth], books[1][: c.depth]]
            out = []
            for side in sides:
                out += [abs(tick - mid) for tick, _ in side]
                out += [math.log1p(qty / c.unit) for _, qty in side]
            return out
        if c.kind == "volume":
            return [_log(self.signed, c), _log(self.unsigned, c)]
        if c.kind == "order_flow":
            return [_log(self._flow(books, i), c) for i in range(c.depth)]
        if c.kind == "imbalance":
            b, a = (sum(q for _, q in side[: c.depth]) for side in books)
            return [(b - a) / (b + a)]
        if c.kind == "microprice":
            return [(bid * ask_qty + ask * bid_qty) / (bid_qty + ask_qty) - mid]
        if c.kind == "spread":
            return [ask - bid]
        if c.kind == "elapsed":
            return [math.log1p((ts_ns - self.last_ns) / 1e6) if self.mids else 0.0]
        assert c.kind == "returns"
        have = len(self.mids)
        return [(mid / self.mids[-lag] - 1) * 1e4 if have >= lag else 0.0 for lag in c.lags]

    def _flow(self, books: list, i: int) -> float:
        """Cont, Kukanov, Stoikov (2014): bid contribution − ask contribution."""
        if self.before is None:
            return 0.0
        (b0, qb0), (a0, qa0) = self.before[0][i], self.before[1][i]
        (b, qb), (a, qa) = books[0][i], books[1][i]
        bid = qb if b > b0 else qb - qb0 if b == b0 else -qb0
        ask = qa if a < a0 else qa - qa0 if a == a0 else -qa0
        return bid - ask
