"""Calibrate the queue-reactive simulator on a recorded market.

    python -m tickrt.simulation.calibrate EVENTS.npz -o calibration_NAME.json

reads an event file (`tickrt data convert` makes one), counts what happens to queues by distance and
size, writes the calibration as JSON and prints recorded and simulated facts beside each other. The
table, misfit included, is stored in the JSON too.

Entry points: `calibrate` (arrays in, document out), `main`.

Invariants: deterministic; the same file gives the same document.

Known limits: bids and asks are pooled, so the simulated market has no drift of its own.
`theta_reinit` and `cascade` are chosen by trying (`TARGETS`), the best queue's rates are corrected
by trying, all other numbers are counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import BUY, KIND_MASK, SNAPSHOT
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.simulation import calibrate_kernels as kernels
from tickrt.simulation.simulator import GENERATOR, Calibration, from_document, simulate
from tickrt.simulation.stylised_facts import Survey, as_markdown, facts, survey

__all__ = ["calibrate", "main"]

# Distance cells, ticks from the own side's best price. The first ten are "the queues" of the paper.
CELLS = [0, 1, 5, 10, 20, 30, 45, 60, 80, 100, 130]
CELLS += [170, 220, 300, 400, 550, 750, 1000, 1400, 2000, 3000, 4096]
NEAR_CELLS = 10
BIN_EDGES = (1 / 16, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # in average event sizes of the cell
PRIOR = 20.0  # a rate leans on its cell's mean with the weight of so many events
ENTRIES = 64  # of a quantile table
SIZE_CLASSES = (1, 2, 4, 8, 16, 32, 64, 128)  # lowest number of changes in a message of a class
FAST_SHIFT, SLOW_SHIFT = 1, 4  # activity: moving averages over about 2 and 16 messages
FAST_CLASSES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # quantiles
SLOW_CLASSES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PERSIST = 0.75  # the pressure behind a move lasts four messages on average
LATENCY_FLOOR_NS = 1_000_000
LEVEL_KINDS = {
    "more": kernels.MORE,
    "less": kernels.LESS,
    "delete": kernels.DELETE,
    "touch": kernels.TOUCH,
}
BEST_KINDS = ("more", "less", "delete", "touch", "market")
EMPTIED = (kernels.FOLLOWED, kernels.OPENED)  # what a message can do to the best queue
CASCADE_GRID = (0.0, 0.05, 0.08, 0.1, 0.12, 0.15)
REINIT_GRID = (0.0, 0.1, 0.2, 0.4)
TARGETS = ("mid changes per message", "volatility 1 s, ticks", "sign autocorrelation of jumps")


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Document = dict[str, Any]


def _quantiles(values: npt.NDArray[Any], entries: int = ENTRIES, ends: bool = False) -> list[int]:
    """A table that `simulator_kernels.pick` (or `between`, with the ends) draws from."""
    at = np.linspace(0, 1, entries + 1) if ends else (np.arange(entries) + 0.5) / entries
    table = [int(x) for x in np.quantile(values, at, method="inverted_cdf")]
    if not ends:  # the last entry stands for the whole tail: its mean, not its median
        tail = values[values >= np.quantile(values, 1 - 1 / entries)]
        table[-1] = round(float(tail.mean()))
    return table


def _sizes(values: Ints, fallback: Ints) -> list[int]:
    """Quantiles of `values`, or of `fallback` where there are too few."""
    return _quantiles(values if len(values) >= ENTRIES else fallback)


def _rate(counts: Floats, seconds: Floats) -> Floats:
    """Events per second by cell and bin, leaning on the cell's mean where little was seen."""
    mean = counts.sum(axis=1, keepdims=True) / np.maximum(seconds.sum(axis=1, keepdims=True), 1e-9)
    prior = PRIOR / np.maximum(mean, 1e-9)
    leaning = (counts + PRIOR) / (seconds + prior)
    return np.where(mean > 0, leaning, 0.0)


def _counts(seen: Survey, kind: int, shape: tuple[int, int]) -> Floats:
    chosen = seen.records[seen.records[:, 0] == kind]
    flat = np.bincount(chosen[:, 1] * shape[1] + chosen[:, 2], minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.float64)


def _rates(seen: Survey) -> dict[str, Floats]:
    """Events per second: of a level by cell and bin, of an empty tick by cell, of the best."""
    shape = (seen.exposure.shape[0], seen.exposure.shape[1])
    out: dict[str, Floats] = {}
    for name, kind in LEVEL_KINDS.items():
        out[name] = _rate(_counts(seen, kind, shape), seen.exposure)
    for name, kind in (("new", kernels.NEW_LEVEL), ("blink", kernels.BLINK)):
        out[name] = _counts(seen, kind, shape).sum(axis=1) / np.maximum(seen.empty, 1e-9)
    known = seen.orders[seen.orders[:, 0] >= 0]
    counts = np.bincount(known[:, 0], minlength=shape[1]).astype(np.float64)
    counts *= len(seen.orders) / max(1, len(known))
    out["market"] = _rate(counts[None, :], seen.exposure[:1])[0]
    return out


def _match_best(document: Document, seen: Survey, seconds: float, rounds: int = 4) -> None:
    """Scale the rates of the best queue until a message shows as many of its events as recorded.

    Several events of one queue within a message are seen as one. That hardly happens elsewhere, but
    takes a third of the best queue's events away; so its true rates are higher than the seen.
    Decreases also lean towards the recorded mean size of the best queue.
    """
    weight = seen.exposure[0] / seen.exposure[0].sum()
    real = _rates(seen)
    for _ in range(rounds):
        there = _simulated(from_document(document), seconds, seed=1)
        simulated = _rates(there)
        excess = float(there.best.mean() / seen.best.mean())
        for name in BEST_KINDS:
            row = document["rates"][name]
            best = row if name == "market" else row[0]
            seen_real = real[name] if name == "market" else real[name][0]
            seen_here = simulated[name] if name == "market" else simulated[name][0]
            factor = float(weight @ seen_real) / max(1e-9, float(weight @ seen_here))
            factor *= excess**0.5 if name == "less" else 1.0
            best[:] = [round(value * factor, 6) for value in best]


def _size_tables(seen: Survey, resting: list[Ints]) -> Document:
    cells, bins = seen.exposure.shape
    record = seen.records

    def of(kind: int, cell: int | None = None) -> Ints:
        chosen = record[:, 0] == kind
        if cell is not None:
            chosen &= record[:, 1] == cell
        values: Ints = record[chosen, 3]
        return values

    more = record[(record[:, 0] == kernels.MORE) & (record[:, 1] == 0)]
    more_of, more_bin = more[:, 3], more[:, 2]
    less = record[record[:, 0] == kernels.LESS]
    best = less[:, 1] == 0
    known = seen.orders[seen.orders[:, 0] >= 0]
    return {
        "rest": [_sizes(values, resting[-1]) for values in resting],
        "new": [_sizes(of(kernels.NEW_LEVEL, c), of(kernels.NEW_LEVEL)) for c in range(cells)],
        "more": [_sizes(of(kernels.MORE, c), of(kernels.MORE)) for c in range(cells)],
        "best_more": [_sizes(more_of[more_bin == b], more_of) for b in range(bins)],
        "less": [
            [_sizes(less_of[less_bin == b], less_of) for b in range(bins)]
            for less_of, less_bin in (
                (less[best, 3], less[best, 2]),
                (less[~best, 3], less[~best, 2]),
            )
        ],
        "market": [_sizes(known[known[:, 0] == b, 1], known[:, 1]) for b in range(bins)],
        "fills": _quantiles(seen.orders[:, 4]),
        "follow": _sizes(of(kernels.FOLLOW), of(kernels.NEW_LEVEL)),
        "refill": _sizes(of(kernels.REFILL), of(kernels.FOLLOW)),
        "left": _left_behind(seen),
        "jump": _quantiles(seen.moves[np.isin(seen.moves[:, 0], EMPTIED), 2]),
    }


def _left_behind(seen: Survey) -> list[int]:
    """Thousandths of the followers' old best queue that are there when the message ends."""
    touched = seen.records[seen.records[:, 0] == kernels.LEFT, 3]
    moves = int((seen.moves[:, 0] == kernels.FOLLOWED).sum())
    same = np.full(max(0, moves - len(touched)), 1000, np.int64)
    return _sizes(np.concatenate([touched, same]), np.array([1000]))


def _activity(classes: Ints) -> tuple[Ints, Ints]:
    """The simulator's two moving averages before each message, 16.16 fixed point."""
    out = np.zeros((2, len(classes)), np.int64)
    value = [(len(SIZE_CLASSES) << 16) // 2] * 2
    for i, size in enumerate(classes.tolist()):
        for row, shift in enumerate((FAST_SHIFT, SLOW_SHIFT)):
            out[row, i] = value[row]
            value[row] += ((size << 16) - value[row]) >> shift
    return out[0], out[1]


def _tilted(
    share: Floats, fast_edges: Floats, slow_edges: Floats, mean: Floats, to: float
) -> Floats:
    """Tilt the classes' odds until the chain's mean message is as large as the recorded one.

    A chain that draws its next class given its own past does not keep the mean of its source.
    """
    uniform = np.random.default_rng(1).random(50_000)
    edges = fast_edges.tolist(), slow_edges.tolist()
    low, high = -0.2, 0.2
    for _ in range(12):
        tilt = (low + high) / 2
        tilted: Floats = share * np.exp(tilt * np.arange(share.shape[2]))
        tilted /= tilted.sum(axis=2, keepdims=True)
        cumulative = np.cumsum(tilted, axis=2).tolist()
        value, total = [(share.shape[2] << 16) // 2] * 2, 0.0
        for u in uniform.tolist():
            row = cumulative[bisect_left(edges[0], value[0])][bisect_left(edges[1], value[1])]
            size = min(bisect_left(row, u), share.shape[2] - 1)
            total += float(mean[size])
            for i, shift in enumerate((FAST_SHIFT, SLOW_SHIFT)):
                value[i] += ((size << 16) - value[i]) >> shift
        low, high = (tilt, high) if total / len(uniform) < to else (low, tilt)
    return tilted


def _batches(seen: Survey) -> Document:
    used = seen.messages[seen.messages[:, 1] > 0]
    sizes, gaps = used[1:, 1], np.diff(used[:, 0])
    classes = np.searchsorted(SIZE_CLASSES, sizes, side="right") - 1
    n = len(SIZE_CLASSES)
    fast, slow = _activity(classes)
    fast_edges: Floats = np.quantile(fast, FAST_CLASSES).astype(np.float64)
    slow_edges: Floats = np.quantile(slow, SLOW_CLASSES).astype(np.float64)
    row, column = np.searchsorted(fast_edges, fast), np.searchsorted(slow_edges, slow)
    count = np.zeros((len(fast_edges) + 1, len(slow_edges) + 1, n))
    np.add.at(count, (row, column, classes), 1.0)
    overall = np.bincount(classes, minlength=n) / len(classes)
    share = (count + PRIOR * overall) / (count.sum(axis=2, keepdims=True) + PRIOR)
    mean = np.array([sizes[classes == k].mean() for k in range(n)])
    share = _tilted(share, fast_edges, slow_edges, mean, float(sizes.mean()))
    return {
        "sizes": [_quantiles(sizes[classes == k]) for k in range(n)],
        "gap_ns": [_quantiles(gaps[classes == k], ends=True) for k in range(n)],
        "next": np.round(np.cumsum(share, axis=2), 6).tolist(),
        "fast_edges": np.round(fast_edges / 65536, 4).tolist(),
        "slow_edges": np.round(slow_edges / 65536, 4).tolist(),
        "fast_shift": FAST_SHIFT,
        "slow_shift": SLOW_SHIFT,
    }


def _hazard(seen: Survey, caught_open: float) -> float:
    """Closing probability per event that leaves a share of the openings open when a message ends.

    An opening lies anywhere in its message; a message of m changes is met with weight m.
    """
    m = seen.messages[:, 1].astype(np.float64)
    m = m[m > 0]
    low, high = 1e-4, 1.0
    for _ in range(60):
        h = (low * high) ** 0.5
        share = float(np.sum(m * (1 - np.exp(-h * m)) / (h * m)) / m.sum())
        low, high = (h, high) if share > caught_open else (low, h)
    return high


def _event_sizes(seen: Survey) -> Floats:
    """Average event size by cell, lots: the unit of the size bins (AES of the paper)."""
    sized = seen.records[
        np.isin(seen.records[:, 0], (kernels.NEW_LEVEL, kernels.MORE, kernels.DELETE))
    ]
    cells = len(CELLS) - 1
    total = np.bincount(sized[:, 1], weights=sized[:, 3], minlength=cells)
    size: Floats = np.maximum(1.0, total / np.maximum(1, np.bincount(sized[:, 1], minlength=cells)))
    return size


def _resting(seen: Survey, bin_edges: Ints) -> list[Ints]:
    """Sizes at rest by cell: sizes of deleted and new levels, weighted to the time in each bin."""
    out: list[Ints] = []
    for c in range(seen.exposure.shape[0]):
        kinds = (kernels.DELETE, kernels.NEW_LEVEL, kernels.TOUCH)
        seen_here = seen.records[(seen.records[:, 1] == c) & np.isin(seen.records[:, 0], kinds), 3]
        if c == 0:
            seen_here = seen.best.ravel()
        bins = np.searchsorted(bin_edges[c], seen_here)
        weight = seen.exposure[c] / seen.exposure[c].sum()
        parts = [
            np.array(_quantiles(seen_here[bins == b], max(1, round(1024 * share))))
            for b, share in enumerate(weight)
            if np.any(bins == b) and share > 0
        ]
        out.append(np.sort(np.concatenate(parts)))
    return out


def _document(
    events: npt.NDArray[np.void], instrument: Instrument, name: str
) -> tuple[Document, Survey]:
    cells = np.array(CELLS, np.int64)
    none = np.full((len(CELLS) - 1, len(BIN_EDGES)), np.iinfo(np.int64).max, np.int64)
    tick, lot = instrument.tick_size, instrument.lot_size
    unit = _event_sizes(survey(events, tick, lot, cells, none))
    bin_edges = np.floor(unit[:, None] * np.array(BIN_EDGES)).astype(np.int64)
    seen = survey(events, tick, lot, cells, bin_edges)
    outcome = np.bincount(seen.moves[:, 0], minlength=4)
    moved = int(outcome[kernels.FOLLOWED] + outcome[kernels.CLOSED_MOVED])
    emptied = int(outcome[kernels.FOLLOWED] + outcome[kernels.OPENED])
    latency = seen.latency_ns - np.quantile(seen.latency_ns, 0.001) + LATENCY_FLOOR_NS
    bids = events[(events["ev"] & BUY) != 0]
    bids = bids[(bids["ev"] & KIND_MASK) == SNAPSHOT]
    seconds = seen.exposure.sum(axis=1)
    document: Document = {
        "name": name,
        "generator": GENERATOR,
        "instrument": instrument.to_dict(),
        "start_tick": round(float(bids["px"].max()) / tick),
        "cells": CELLS,
        "near_cells": NEAR_CELLS,
        "event_size": np.round(unit, 3).tolist(),
        "bin_edges": bin_edges.tolist(),
        "occupied": np.round(seconds / (seconds + seen.empty), 6).tolist(),
        "rates": {name: np.round(rate, 6).tolist() for name, rate in _rates(seen).items()},
        "sizes": _size_tables(seen, _resting(seen, bin_edges)),
        "batches": _batches(seen),
        "latency_ns": _quantiles(np.maximum(latency, LATENCY_FLOOR_NS), ends=True),
        "hazard": round(_hazard(seen, outcome[kernels.OPENED] / max(1, emptied)), 6),
        "theta": round(moved / max(1, moved + int(outcome[kernels.CLOSED_BACK])), 6),
        "theta_reinit": 0.0,
        "cascade": 0.0,
        "persist": PERSIST,
        "counts": {
            "emptied": emptied,
            "caught open": int(outcome[kernels.OPENED]),
            "moved": moved,
            "came back": int(outcome[kernels.CLOSED_BACK]),
        },
    }
    return document, seen


def _simulated(calibration: Calibration, seconds: float, seed: int) -> Survey:
    document = calibration.document
    instrument = document["instrument"]
    events, _ = simulate(seconds, seed=seed, calibration=calibration)
    return survey(
        events,
        instrument["tick_size"],
        instrument["lot_size"],
        np.array(document["cells"], np.int64),
        np.array(document["bin_edges"], np.int64),
    )


def calibrate(
    events: npt.NDArray[np.void],
    instrument: Instrument,
    name: str,
    *,
    seconds: float = 3600.0,
    say: Callable[[str], None] = lambda _: None,
) -> Document:
    """Count a recorded market into a calibration document.

    Args:
        events: EVENT_DTYPE[n] with BATCH_END marks, from a snapshot on.
        instrument: tick and lot size, contract terms.
        name: what `simulate(calibration=…)` calls it.
        seconds: simulated time per trial and for the comparison.
        say: told about progress.

    Returns:
        The document that `simulator.load_calibration` reads, with the comparison under ``fit``.

    Raises:
        DataError: the file cannot be counted (no snapshot, no messages, a side runs empty).
    """
    document, seen = _document(events, instrument, name)
    real = facts(seen)
    _match_best(document, seen, seconds)
    best: tuple[float, float, float, dict[str, float]] | None = None
    for cascade in CASCADE_GRID:
        for reinit in REINIT_GRID:
            document["cascade"], document["theta_reinit"] = cascade, reinit
            simulated = facts(_simulated(from_document(document), seconds, seed=1))
            miss = sum(np.log(max(simulated[key], 1e-9) / real[key]) ** 2 for key in TARGETS)
            say(f"cascade {cascade}, theta_reinit {reinit}: miss {miss:.4f}")
            if best is None or miss < best[0]:
                best = float(miss), cascade, reinit, simulated
    assert best is not None
    _, document["cascade"], document["theta_reinit"], simulated = best
    document["source"] = {"seconds": round(seen.seconds, 3), "events": len(events)}
    document["fit"] = {
        "simulated_seconds": seconds,
        "real": {key: float(f"{value:.5g}") for key, value in real.items()},
        "simulated": {key: float(f"{value:.5g}") for key, value in simulated.items()},
    }
    return document


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from tickrt.errors import TickrtError
    from tickrt.market.event_file import load_events

    parser = argparse.ArgumentParser(
        prog="python -m tickrt.simulation.calibrate", description=__doc__
    )
    parser.add_argument("events", type=Path, help="event file of a recorded market")
    parser.add_argument("-o", "--out", type=Path, required=True, help="calibration_NAME.json")
    parser.add_argument("--symbol", help="instrument, if the file does not say it")
    parser.add_argument("--seconds", type=float, default=3600.0, help="simulated time per trial")
    given = parser.parse_args(arguments)
    try:
        loaded = load_events(given.events)
        instrument = KNOWN[given.symbol] if given.symbol else loaded.instrument
        if instrument is None:
            parser.error(f"{given.events} names no instrument: give --symbol, one of {list(KNOWN)}")
        name = given.out.stem.removeprefix("calibration_")
        document = calibrate(loaded.data, instrument, name, seconds=given.seconds, say=print)
    except TickrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    given.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print(as_markdown(document["fit"]))
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
