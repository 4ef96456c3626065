"""Stylised facts of an event file: what a recorded and a simulated market are compared by.

Entry points: `survey` walks a file once (`calibrate_kernels.observe`), `facts` turns what it
counted into named numbers, `as_markdown` prints two markets beside each other.

Invariants: both markets go through the same code. Prices in ticks, sizes in lots, times in seconds
unless the name says otherwise.

Known limits: events outside the ladder (65,536 ticks) or beyond the calibrated depth do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import BATCH_END, BUY, CLEAR, KIND_MASK, LOCAL, SNAPSHOT, TRADE
from tickrt.errors import DataError
from tickrt.simulation import calibrate_kernels as kernels

__all__ = ["LEVELS", "Survey", "as_markdown", "facts", "survey"]

LADDER = 1 << 16
LEVELS = 150
STEP_NS = 100_000_000

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """What one pass over an event file counted; see `calibrate_kernels.Tally` for the columns."""

    seconds: float
    records: Ints
    orders: Ints
    messages: Ints
    best: Ints
    moves: Ints
    exposure: Floats
    empty: Floats
    level: Floats
    latency_ns: Ints
    trades: int


def _tape(events: npt.NDArray[np.void], tick_size: float, lot_size: float) -> kernels.Tape:
    ev = events["ev"].astype(np.int64)
    events = events[(ev & LOCAL) != 0]
    ev = events["ev"].astype(np.int64)
    if not np.any(ev & BATCH_END):
        raise DataError("calibration: no event carries BATCH_END; load the file with load_events")
    kind = ev & KIND_MASK
    book = (kind == SNAPSHOT) & (events["px"] > 0)
    if not np.any(book):
        raise DataError("calibration: the file has no snapshot; it must start with one")
    first = int(np.argmax(kind == SNAPSHOT))
    bids = book & ((ev & BUY) != 0)
    middle = round(float(events["px"][bids].max()) / tick_size)
    tick = np.rint(np.nan_to_num(events["px"]) / tick_size).astype(np.int64) - middle + LADDER // 2
    lots = np.rint(events["qty"] / lot_size).astype(np.int64)
    order = np.argsort(events["exch_ts"], kind="stable")
    order = order[(kind[order] == TRADE) & (lots[order] > 0)]
    keep = np.arange(len(ev)) >= first
    keep &= kind != CLEAR
    return kernels.Tape(
        ev=ev[keep],
        ts=events["exch_ts"][keep].astype(np.int64),
        tick=tick[keep],
        lots=lots[keep],
        trade_ts=events["exch_ts"][order].astype(np.int64),
        trade_side=np.where(ev[order] & BUY, 1, 0).astype(np.int64),
        trade_tick=tick[order],
        trade_lots=lots[order],
    )


def survey(
    events: npt.NDArray[np.void], tick_size: float, lot_size: float, cells: Ints, bin_edges: Ints
) -> Survey:
    """Count what happens in a file, by distance from the best price and by level size.

    Args:
        events: EVENT_DTYPE[n] with BATCH_END marks, from a snapshot on.
        tick_size: price step.
        lot_size: quantity step.
        cells: i8[C+1] edges of the distance cells, ticks.
        bin_edges: i8[C,B-1] edges of the size bins, lots.

    Raises:
        DataError: no snapshot, no BATCH_END, or a side of the book runs empty.
    """
    tape = _tape(events, tick_size, lot_size)
    shape = (len(cells) - 1, bin_edges.shape[1] + 1)
    ends = np.flatnonzero(tape.ev & BATCH_END)

    def zeros(*size: int) -> Ints:
        return np.zeros(size, np.int64)

    tally = kernels.Tally(
        edge=cells,
        cell=np.repeat(np.arange(shape[0]), np.diff(cells)).astype(np.int64),
        bin_edge=bin_edges,
        exposure=np.zeros(shape),
        empty=np.zeros(shape[0]),
        record=zeros(len(tape.ev), 4),
        order=zeros(len(tape.trade_ts) + 1, 5),
        message=zeros(len(ends) + 1, 4),
        best=zeros(len(ends) + 1, 2),
        move=zeros(len(ends) + 1, 3),
        level=np.zeros((3, LEVELS)),
        traded=zeros(2, LADDER),
        old=zeros(int(np.diff(ends, prepend=-1).max(initial=1))),
        lots=zeros(2, LADDER),
        n=zeros(4),
    )
    if kernels.observe(tape, tally, zeros(4), zeros(1), zeros(2)) != 0:
        raise DataError("calibration: a side of the book is empty after a message")
    records, orders, messages, moves = (int(n) for n in tally.n)
    stamps = tally.message[:messages, 0]
    latency = events["local_ts"].astype(np.int64) - events["exch_ts"].astype(np.int64)
    return Survey(
        seconds=float(stamps[-1] - stamps[0]) / 1e9,
        records=tally.record[:records].copy(),
        orders=tally.order[:orders].copy(),
        messages=tally.message[:messages].copy(),
        best=tally.best[:messages].copy(),
        moves=tally.move[:moves].copy(),
        exposure=tally.exposure,
        empty=tally.empty,
        level=tally.level,
        latency_ns=latency[(events["ev"] & BATCH_END) != 0],
        trades=len(tape.trade_ts),
    )


def _autocorrelation(x: Floats, lag: int = 1) -> float:
    if len(x) < lag + 2 or x.std() == 0:
        return 0.0
    return float(np.corrcoef(x[:-lag], x[lag:])[0, 1])


def _mid_facts(seen: Survey) -> dict[str, float]:
    ts = seen.messages[:, 0]
    mid = (seen.messages[:, 2] + seen.messages[:, 3]) / 2
    grid = np.arange(ts[0], ts[-1], STEP_NS)
    index = np.searchsorted(ts, grid, side="right") - 1
    steps = np.diff(mid[index])
    jumps = np.diff(mid)
    jumps = jumps[jumps != 0]
    out = {
        "mid changes per 100 ms": float((steps != 0).mean()),
        "mid changes per message": float(len(jumps) / max(1, len(mid) - 1)),
        "jump median, ticks": float(np.median(np.abs(jumps))) if len(jumps) else 0.0,
        "jump 95 %, ticks": float(np.percentile(np.abs(jumps), 95)) if len(jumps) else 0.0,
        "sign autocorrelation of jumps": _autocorrelation(np.sign(jumps)),
    }
    for n, name in ((1, "100 ms"), (10, "1 s"), (100, "10 s")):
        out[f"volatility {name}, ticks"] = float(np.diff(mid[index][::n]).std())
    size = seen.best[index].astype(np.float64)
    imbalance = (size[:, 0] - size[:, 1]) / (size[:, 0] + size[:, 1])
    ahead = steps != 0
    agree = np.sign(imbalance[:-1][ahead]) == np.sign(steps[ahead])
    out["imbalance points to the next 100 ms move"] = float(agree.mean()) if ahead.any() else 0.0
    return out


def facts(seen: Survey) -> dict[str, float]:
    """Named numbers of a survey, in the order in which they are printed."""
    kinds = np.bincount(seen.records[:, 0], minlength=8)
    span = max(seen.seconds, 1e-9)
    spread = seen.messages[:, 3] - seen.messages[:, 2]
    sizes = seen.messages[:, 1]
    used = sizes[sizes > 0]
    gaps = np.diff(seen.messages[sizes > 0, 0]) / 1e6
    names = ("new level", "came and went", "more", "less", "deleted", "touched")
    out = {f"{name} per s": float(kinds[i]) / span for i, name in enumerate(names)}
    out["depth changes per s"] = float(sizes.sum()) / span
    out["depth messages per s"] = len(used) / span
    out["market orders per s"] = len(seen.orders) / span
    out["trades per s"] = seen.trades / span
    out["traded lots per s"] = float(seen.orders[:, 2].sum()) / span
    for q in (50, 95, 99):
        out[f"changes per message {q} %"] = float(np.percentile(used, q))
    out["autocorrelation of log changes"] = _autocorrelation(np.log(used.astype(np.float64)))
    for q in (5, 50, 95):
        out[f"gap {q} %, ms"] = float(np.percentile(gaps, q))
    for ticks in (1, 2, 10, 50):
        out[f"spread ≤ {ticks} ticks"] = float((spread <= ticks).mean())
    out |= _mid_facts(seen)
    for level in (1, 2, 3, 5, 10, 20, 50, 100):
        if seen.level[2, level - 1] > 0:
            distance, lots, n = seen.level[:, level - 1]
            out[f"level {level}: ticks from the best"] = float(distance / n)
            out[f"level {level}: mean lots"] = float(lots / n)
    return out


def as_markdown(fit: dict[str, Any]) -> str:
    """The stored comparison as a Markdown table."""
    real, simulated = fit["real"], fit["simulated"]
    rows = [(name, real[name], simulated[name]) for name in real if name in simulated]
    lines = ["| what | recorded | simulated |", "|---|---:|---:|"]
    lines += [f"| {name} | {a:.4g} | {b:.4g} |" for name, a, b in rows]
    return "\n".join(lines)
