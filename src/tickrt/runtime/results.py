"""From the memory of a finished loop to the report's plain dict (`observe.report`).

Entry point: `loop_report(parts, markets, ticks_per_ns)`. It only reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import Code
from tickrt.market.instrument import Instrument
from tickrt.observe.histogram import cdf, percentiles
from tickrt.observe.report import thin
from tickrt.runtime.parts import Parts
from tickrt.runtime.split_engine import SplitEngine
from tickrt.runtime.state import COUNTERS, STAGES
from tickrt.strategy.risk import RiskReason
from tickrt.strategy.state import Mode

__all__ = ["counter", "fill_list", "loop_report", "series"]

_SHOWN = ("events", "batches", "rows", "signals", "intents", "orders", "cancels", "fills")


def counter(parts: Parts, name: str) -> int:
    """A counter of the loop by its name (`state.COUNTERS`)."""
    return int(parts.loop.counters[COUNTERS.index(name)])


def _rejects(parts: Parts) -> dict[str, int]:
    totals = parts.loop.risk.rejects.sum(axis=0)
    return {
        reason.name.lower(): int(totals[reason])
        for reason in RiskReason
        if reason and totals[reason]
    }


def series(parts: Parts, markets: Sequence[Instrument]) -> list[dict[str, Any]]:
    """Per strategy: time, mid, signal, position, equity, thinned for a chart."""
    decisions = parts.loop.tape.decisions[: counter(parts, "decisions")]
    result = []
    for p, seat in enumerate(parts.seats):
        mine = decisions[decisions["strategy"] == p]
        mine = mine[thin(len(mine))]
        tick = markets[seat.symbol].tick_size
        result.append(
            {
                "symbol": markets[seat.symbol].symbol,
                "strategy": seat.name,
                "currency": "coin" if markets[seat.symbol].contract == "inverse" else "quote",
                "t_ns": mine["ts_ns"].tolist(),
                "mid": (0.5 * tick * mine["mid2_tick"]).tolist(),
                "p_up": mine["p_up"].tolist(),
                "p_down": mine["p_down"].tolist(),
                "position": mine["position"].tolist(),
                "equity": mine["equity"].tolist(),
            }
        )
    return result


def fill_list(
    fills: NDArray[np.void], parts: Parts, markets: Sequence[Instrument]
) -> list[dict[str, Any]]:
    """`FILL_DTYPE` records as the report lists them."""
    rows = []
    for fill in fills:
        seat = parts.seats[int(fill["strategy"])]
        market = markets[seat.symbol]
        rows.append(
            {
                "t_ns": int(fill["ts_ns"]),
                "symbol": market.symbol,
                "strategy": seat.name,
                "side": int(fill["side"]),
                "px": int(fill["px_tick"]) * market.tick_size,
                "qty": int(fill["qty_lots"]) * market.lot_size,
                "maker": bool(fill["maker"]),
                "fee": float(fill["fee"]),
            }
        )
    return rows


def _notes(parts: Parts) -> list[str]:
    notes = []
    lost = counter(parts, "lost")
    if lost:
        notes.append(f"the tape was full: {lost} records are missing here; no order was lost")
    for e, engine in enumerate(parts.engines):
        code = int(parts.loop.engines.code[e])
        if code < 0:
            text = engine.error()
            notes.append(f"engine {e} last said {Code(code).name}{': ' + text if text else ''}")
    halted = [seat.name for p, seat in enumerate(parts.seats) if parts.loop.risk.halted[p]]
    if halted:
        notes.append(f"halted until a person re-arms: {', '.join(halted)}")
    return notes


def loop_report(parts: Parts, markets: Sequence[Instrument], ticks_per_ns: float) -> dict[str, Any]:
    """All that the loop wrote down, as the report's keys."""
    loop, first = parts.loop, parts.seats[0]
    stages = [(i, stage) for i, stage in enumerate(STAGES) if loop.hist.stats[i, 0]]
    fills = loop.tape.fills[: min(counter(parts, "fills"), len(loop.tape.fills))]
    return {
        **{name: counter(parts, name) for name in _SHOWN},
        "risk_rejects": _rejects(parts),
        "faults": counter(parts, "faults"),
        "waited": counter(parts, "waited"),
        "fallback_decisions": counter(parts, "fallbacks"),
        "modes": {
            s.name: Mode(int(loop.strategies.mode[p])).name.lower()
            for p, s in enumerate(parts.seats)
        },
        "latency_us": {
            stage: percentiles(loop.hist, i, ticks_per_ns) for i, stage in enumerate(STAGES)
        },
        "latency_cdf": {stage: cdf(loop.hist, i, ticks_per_ns) for i, stage in stages},
        "engine": parts.engines[0].describe(),
        "engines": [engine.describe() for engine in parts.engines],
        "graphs": {
            str(engine.describe()["model"]): engine.drawing
            for engine in parts.engines
            if isinstance(engine, SplitEngine) and engine.drawing
        },
        "feature_hash": first.spec.hash,
        "spec": first.spec.name,
        "symbols": [market.symbol for market in markets],
        "strategies": [seat.name for seat in parts.seats],
        "series": series(parts, markets),
        "fill_list": fill_list(fills, parts, markets),
        "notes": _notes(parts),
    }
