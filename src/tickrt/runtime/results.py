"""From the memory of a finished loop and its records to a typed `Report`.

Entry point: `loop_report(assembly, recorder, markets, ran)`. It only reads. Each function that
reads the loop's memory takes one part of it; `loop_report` puts them together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tickrt import __version__
from tickrt.compile.codes import ENGINE_ROWS, RECORD_FILL
from tickrt.compile.jit import JIT
from tickrt.errors import Code
from tickrt.market.instrument import Instrument
from tickrt.memory.records import RECORD_NAMES
from tickrt.observe.clock import ticks_per_ns
from tickrt.observe.histogram import cdf, percentiles
from tickrt.observe.machine import machine_info
from tickrt.risk.limits import RiskReason
from tickrt.runtime.assembly import Assembly
from tickrt.runtime.loop.state import COUNTERS, STAGES
from tickrt.runtime.recorder import FILLS, SERIES, Recorder
from tickrt.runtime.report_types import (
    Arrangement,
    Currency,
    EngineFacts,
    FillRow,
    GpuUse,
    LatencySummary,
    Machine,
    ModeName,
    Report,
    Series,
)
from tickrt.strategy.state import Mode

__all__ = [
    "Ran",
    "counter",
    "currency",
    "engine_facts",
    "fill_rows",
    "latency_of",
    "loop_report",
    "series",
    "summary",
    "thin",
]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What whoever ran the loop knows of it.

    Attributes:
        kind: what was done.
        data: the event files.
        pace: as `session.pace_text` says it.
        wall_s: time in the loop.
        compile_s: time to compile it.
        startup_s: time before the first event, compiling included.
        config: the settings, ready for JSON.
        floor: `clock.floor()`, where it was measured.
        interrupted: name of the signal that ended it early.
        arranged: what came of what was asked of the system for the hot thread.
        gpu: what the GPU did, where engines are on one.
        notes: what else the reader must know.
    """

    kind: Literal["run", "backtest"]
    data: Sequence[str]
    pace: str
    wall_s: float
    compile_s: float
    startup_s: float
    config: Mapping[str, Any]
    floor: Mapping[str, Mapping[str, float]] | None = None
    interrupted: str | None = None
    arranged: Sequence[Arrangement] = ()
    gpu: GpuUse | None = None
    notes: Sequence[str] = ()


def thin(count: int, limit: int = SERIES) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most `limit` indices, evenly spread over ``0 … count-1``, first and last included."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def counter(assembly: Assembly, name: str) -> int:
    """A counter of the loop by its name (`state.COUNTERS`)."""
    return int(assembly.loop.counters[COUNTERS.index(name)])


def currency(instrument: Instrument) -> Currency:
    """What a contract pays in."""
    return "coin" if instrument.inverse else "quote"


def summary(values: Mapping[str, float]) -> LatencySummary:
    """`histogram.percentiles` as a type."""
    return LatencySummary(**cast(Any, values))


def engine_facts(facts: Mapping[str, Any]) -> EngineFacts:
    """What an engine's `describe` says; what we have no field for goes into `details`."""
    known = {field.name for field in fields(EngineFacts)} - {"details"}
    details = {name: value for name, value in facts.items() if name not in known}
    named = {name: value for name, value in facts.items() if name in known}
    return EngineFacts(**named, details=details or None)


def _rejects(assembly: Assembly) -> dict[str, int]:
    totals = assembly.loop.risk.rejects.sum(axis=0)
    return {
        reason.name.lower(): int(totals[reason])
        for reason in RiskReason
        if reason and totals[reason]
    }


def _modes(assembly: Assembly) -> dict[str, ModeName]:
    modes = assembly.loop.strategies.mode
    return {
        slot.name: cast(ModeName, Mode(int(modes[p])).name.lower())
        for p, slot in enumerate(assembly.slots)
    }


def latency_of(assembly: Assembly, ticks_per_ns: float) -> dict[str, LatencySummary]:
    """The latency of each stage, µs."""
    hist = assembly.loop.hist
    return {s: summary(percentiles(hist, i, ticks_per_ns)) for i, s in enumerate(STAGES)}


def _lost(assembly: Assembly) -> dict[str, int]:
    """Records that found no room, by kind."""
    lost = assembly.loop.records.lost
    return {name: int(lost[kind]) for kind, name in RECORD_NAMES.items() if lost[kind]}


def _values(column: NDArray[Any]) -> list[float | None]:
    """A column as JSON has it: None where there is no value."""
    return [value if np.isfinite(value) else None for value in column.tolist()]


def series(assembly: Assembly, recorder: Recorder, markets: Sequence[Instrument]) -> list[Series]:
    """Per strategy: time, mid, signal, position, equity, thinned for a chart."""
    result = []
    for p, slot in enumerate(assembly.slots):
        mine = recorder.series(p)
        mine = mine[thin(len(mine))]
        market = markets[slot.symbol]
        result.append(
            Series(
                symbol=market.symbol,
                strategy=slot.name,
                currency=currency(market),
                t_ns=mine["ts_ns"].tolist(),
                mid=_values(0.5 * market.tick_size * mine["mid2_tick"]),
                p_up=_values(mine["p_up"]),
                p_down=_values(mine["p_down"]),
                position=mine["position"].tolist(),
                equity=_values(mine["equity"]),
            )
        )
    return result


def fill_rows(
    fills: NDArray[np.void], assembly: Assembly, markets: Sequence[Instrument]
) -> list[FillRow]:
    """`FILL_DTYPE` records as the report lists them."""
    rows = []
    for fill in fills:
        slot = assembly.slots[int(fill["strategy"])]
        market = markets[slot.symbol]
        rows.append(
            FillRow(
                t_ns=int(fill["ts_ns"]),
                symbol=market.symbol,
                strategy=slot.name,
                side=1 if fill["side"] > 0 else -1,
                px=int(fill["px_tick"]) * market.tick_size,
                qty=int(fill["qty_lots"]) * market.lot_size,
                maker=bool(fill["maker"]),
                fee=float(fill["fee"]),
            )
        )
    return rows


def _notes(assembly: Assembly, recorder: Recorder) -> list[str]:
    notes = []
    if (count := recorder.count(RECORD_FILL)) > FILLS:
        notes.append(f"fill_list holds the first {FILLS:,} of {count:,} fills")
    for e, engine in enumerate(assembly.engines):
        code = int(assembly.loop.engines.code[e * ENGINE_ROWS])
        if code < 0:
            text = engine.error()
            notes.append(f"engine {e} last said {Code(code).name}{': ' + text if text else ''}")
        if why_not := engine.describe().get("why_not_native"):
            notes.append(f"engine {e} ran in onnxruntime, not native: {why_not}")
    halted = [slot.name for p, slot in enumerate(assembly.slots) if assembly.loop.risk.halted[p]]
    if halted:
        notes.append(f"halted until a person re-arms: {', '.join(halted)}")
    return notes


def _all_notes(assembly: Assembly, recorder: Recorder, ran: Ran) -> list[str]:
    notes = _notes(assembly, recorder)
    if ran.interrupted is not None:
        notes.append(f"interrupted by {ran.interrupted}: this covers what was done until then")
    if not JIT:
        notes.append("NUMBA_DISABLE_JIT is set: the times are those of plain Python")
    return [*notes, *ran.notes]


def loop_report(
    assembly: Assembly, recorder: Recorder, markets: Sequence[Instrument], ran: Ran
) -> Report:
    """All that the loop wrote down, and what `ran` says of it."""
    loop, first, rate = assembly.loop, assembly.slots[0], ticks_per_ns()
    stages = [(i, stage) for i, stage in enumerate(STAGES) if loop.hist.stats[i, 0]]
    lost = _lost(assembly)
    events = counter(assembly, "events")
    engines = [engine_facts(engine.describe()) for engine in assembly.engines]
    return Report(
        kind=ran.kind,
        version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        data=list(ran.data),
        pace=ran.pace,
        events=events,
        batches=counter(assembly, "batches"),
        rows=counter(assembly, "rows"),
        signals=counter(assembly, "signals"),
        intents=counter(assembly, "intents"),
        orders=counter(assembly, "orders"),
        cancels=counter(assembly, "cancels"),
        fills=counter(assembly, "fills"),
        risk_rejects=_rejects(assembly),
        faults=counter(assembly, "faults"),
        waited=counter(assembly, "waited"),
        fallback_decisions=counter(assembly, "fallbacks"),
        lost_records=sum(lost.values()),
        lost_records_by_kind=lost,
        modes=_modes(assembly),
        latency_us=latency_of(assembly, rate),
        latency_cdf={stage: cdf(loop.hist, i, rate) for i, stage in stages},
        engine=engines[0],
        engines=engines,
        graphs=_graphs(assembly),
        feature_hash=first.spec.hash,
        spec=first.spec.name,
        symbols=[market.symbol for market in markets],
        strategies=[slot.name for slot in assembly.slots],
        series=series(assembly, recorder, markets),
        fill_list=fill_rows(recorder.fills(), assembly, markets),
        notes=_all_notes(assembly, recorder, ran),
        interrupted=ran.interrupted,
        wall_s=ran.wall_s,
        events_per_s=events / ran.wall_s if ran.wall_s > 0 else 0.0,
        compile_s=ran.compile_s,
        startup_s=ran.startup_s,
        floor=None if ran.floor is None else {n: summary(v) for n, v in ran.floor.items()},
        hot_thread=list(ran.arranged) or None,
        gpu=ran.gpu,
        machine=Machine(**cast(Any, machine_info())),
        config=dict(ran.config),
    )


def _graphs(assembly: Assembly) -> dict[str, str]:
    """The drawing of each split model."""
    return {
        str(engine.describe()["model"]): str(getattr(engine, "drawing", ""))
        for engine in assembly.engines
        if getattr(engine, "drawing", "")
    }
