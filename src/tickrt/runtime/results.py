"""From the memory of a finished loop and its records to the report (`report.report`).

Entry point: `loop_report(assembly, recorder, markets, ticks_per_ns)`. It only reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import ENGINE_ROWS, RECORD_FILL
from tickrt.errors import Code
from tickrt.market.instrument import Instrument
from tickrt.memory.records import RECORD_NAMES
from tickrt.observe.histogram import cdf, percentiles
from tickrt.risk.limits import RiskReason
from tickrt.runtime.assembly import Assembly
from tickrt.runtime.backends.onnxruntime.split import SplitEngine
from tickrt.runtime.loop.state import COUNTERS, STAGES
from tickrt.runtime.recorder import FILLS, SERIES, Recorder
from tickrt.strategy.state import Mode

__all__ = ["counter", "fill_list", "loop_report", "lost_records", "series", "thin"]

_SHOWN = ("events", "batches", "rows", "signals", "intents", "orders", "cancels", "fills")


def thin(count: int, limit: int = SERIES) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most `limit` indices, evenly spread over ``0 … count-1``, first and last included."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def counter(assembly: Assembly, name: str) -> int:
    """A counter of the loop by its name (`state.COUNTERS`)."""
    return int(assembly.loop.counters[COUNTERS.index(name)])


def _rejects(assembly: Assembly) -> dict[str, int]:
    totals = assembly.loop.risk.rejects.sum(axis=0)
    return {
        reason.name.lower(): int(totals[reason])
        for reason in RiskReason
        if reason and totals[reason]
    }


def series(
    assembly: Assembly, recorder: Recorder, markets: Sequence[Instrument]
) -> list[dict[str, Any]]:
    """Per strategy: time, mid, signal, position, equity, thinned for a chart."""
    result = []
    for p, slot in enumerate(assembly.slots):
        mine = recorder.series[p].records()
        mine = mine[thin(len(mine))]
        tick = markets[slot.symbol].tick_size
        result.append(
            {
                "symbol": markets[slot.symbol].symbol,
                "strategy": slot.name,
                "currency": "coin" if markets[slot.symbol].contract == "inverse" else "quote",
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
    fills: NDArray[np.void], assembly: Assembly, markets: Sequence[Instrument]
) -> list[dict[str, Any]]:
    """`FILL_DTYPE` records as the report lists them."""
    rows = []
    for fill in fills:
        slot = assembly.slots[int(fill["strategy"])]
        market = markets[slot.symbol]
        rows.append(
            {
                "t_ns": int(fill["ts_ns"]),
                "symbol": market.symbol,
                "strategy": slot.name,
                "side": int(fill["side"]),
                "px": int(fill["px_tick"]) * market.tick_size,
                "qty": int(fill["qty_lots"]) * market.lot_size,
                "maker": bool(fill["maker"]),
                "fee": float(fill["fee"]),
            }
        )
    return rows


def lost_records(assembly: Assembly) -> dict[str, int]:
    """How many records of each kind found no room in the ring."""
    lost = assembly.loop.records.lost
    return {name: int(lost[kind]) for kind, name in RECORD_NAMES.items() if lost[kind]}


def _notes(assembly: Assembly, recorder: Recorder) -> list[str]:
    notes = []
    lost = lost_records(assembly)
    if lost:
        kinds = ", ".join(f"{count} of kind {name}" for name, count in lost.items())
        notes.append(
            f"the record ring was full: {kinds} are missing here and in what was kept; no order "
            "was lost"
        )
    if recorder.counts[RECORD_FILL] > FILLS:
        count = int(recorder.counts[RECORD_FILL])
        notes.append(f"fill_list holds the first {FILLS:,} of {count:,} fills")
    for e, engine in enumerate(assembly.engines):
        code = int(assembly.loop.engines.code[e * ENGINE_ROWS])
        if code < 0:
            text = engine.error()
            notes.append(f"engine {e} last said {Code(code).name}{': ' + text if text else ''}")
    halted = [slot.name for p, slot in enumerate(assembly.slots) if assembly.loop.risk.halted[p]]
    if halted:
        notes.append(f"halted until a person re-arms: {', '.join(halted)}")
    return notes


def loop_report(
    assembly: Assembly, recorder: Recorder, markets: Sequence[Instrument], ticks_per_ns: float
) -> dict[str, Any]:
    """All that the loop wrote down, as the report's keys."""
    loop, first = assembly.loop, assembly.slots[0]
    stages = [(i, stage) for i, stage in enumerate(STAGES) if loop.hist.stats[i, 0]]
    return {
        **{name: counter(assembly, name) for name in _SHOWN},
        "risk_rejects": _rejects(assembly),
        "faults": counter(assembly, "faults"),
        "waited": counter(assembly, "waited"),
        "fallback_decisions": counter(assembly, "fallbacks"),
        "modes": {
            s.name: Mode(int(loop.strategies.mode[p])).name.lower()
            for p, s in enumerate(assembly.slots)
        },
        "latency_us": {
            stage: percentiles(loop.hist, i, ticks_per_ns) for i, stage in enumerate(STAGES)
        },
        "latency_cdf": {stage: cdf(loop.hist, i, ticks_per_ns) for i, stage in stages},
        "engine": assembly.engines[0].describe(),
        "engines": [engine.describe() for engine in assembly.engines],
        "graphs": {
            str(engine.describe()["model"]): engine.drawing
            for engine in assembly.engines
            if isinstance(engine, SplitEngine) and engine.drawing
        },
        "feature_hash": first.spec.hash,
        "spec": first.spec.name,
        "symbols": [market.symbol for market in markets],
        "strategies": [slot.name for slot in assembly.slots],
        "series": series(assembly, recorder, markets),
        "fill_list": fill_list(recorder.fills(), assembly, markets),
        "lost_records": int(loop.records.lost.sum()),
        "lost_records_by_kind": lost_records(assembly),
        "notes": _notes(assembly, recorder),
    }
