"""What one engine does to another: a sick neighbour, many on one GPU, and how many it carries.

    python -m benchmarks.isolation [--backend resident|reference|native]     a sick neighbour
    python -m benchmarks.isolation --eight [--backend resident]              eight at once
    python -m benchmarks.isolation --symbols [--backend resident]            until the GPU is full

Each engine has a host of its own; on a GPU all share it under an MPS daemon of this run. A tick's
time runs from before the first engine is asked to the answer read.

*A sick neighbour*: one loop asks a well engine and its neighbour with every row. The neighbour is
not there, well, killed half-way, answers NaN for ever, sleeps over every answer, or is a larger
kernel; by turns, several times. *Eight at once*: one alone, then eight in eight loops (processes on
cores of their own), then eight in one loop. *Symbols*: 1, 2, 4, 8 … of the seed model in loops of
their own, until one's p99 is above 6 µs or no multiprocessor is left.

The result goes to ``results/isolation.json`` (each kind of run keeps its section), or to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._fleet import (
    WARM_ROWS,
    Driven,
    Fleet,
    Plan,
    in_loops_of_their_own,
    loop_cores,
    plan_of,
    summary,
)
from benchmarks._machine import RESULTS, machine
from tickrt import backends
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.translate import TranslateError
from tickrt.errors import TickrtError
from tickrt.host.cores import cores_beside, process_cores
from tickrt.host.mps import share_gpu
from tickrt.host.parcel import Parcel
from tickrt.models.architectures.zoo import make, recurrent
from tickrt.observe.nvml import read_gpus

MODEL, SEED = "lstm-s", "lstm-seed"
EIGHT, MOST, LIMIT_US = 8, 16, 6.0
MULTIPROCESSORS = 132  # of an H100 or H200
_DEADLINE_US, _SLEEP_S = 20.0, 1e-3
# backend → (rows of a turn, µs between two, a deadline)
_PACES = {
    "resident": (10_000, 50.0, _DEADLINE_US),
    "reference": (200, 20_000.0, 15_000.0),
    "native": (200, 20_000.0, 15_000.0),
}


def _loop_model(backend: str, name: str = MODEL) -> LoopModel:
    """A model of the zoo; a small one where NumPy has to run it."""
    if backend == "resident":
        return loop_model(make(name).SerializeToString(), name)
    small = recurrent("LSTM", 2, 32, 16, 32)
    return loop_model(small.SerializeToString(), "lstm-2x32")


def _neighbours(backend: str, model: LoopModel) -> dict[str, Plan | None]:
    """What may stand beside the well engine, by what it does; None: nothing does."""
    hosted = "reference" if backend == "native" else backend
    parcel = Parcel("sleeper", "sleeper", {}, {"seconds": _SLEEP_S})
    kernels = {"sleeper": "benchmarks._sick_kernel"}
    found: dict[str, Plan | None] = {
        "nobody": None,
        "well": plan_of(hosted, model),
        "nan": plan_of(hosted, model, nan=True),
        "sleeps": Plan("sleeper", model, parcel, kernels),
    }
    if backend == "resident":
        large = recurrent("LSTM", 3, 160, model.window, model.width)
        found["large"] = plan_of(backend, loop_model(large.SerializeToString(), "large"))
    return {**found, "killed": found["well"]}


def _killer(pid: int, after_s: float) -> threading.Timer:
    return threading.Timer(after_s, os.kill, (pid, signal.SIGKILL))


def _turn(fleet: Fleet, name: str, one: Plan | None, data: Any, pace: Any) -> Driven:
    """The rows beside that neighbour."""
    rows, gap_us, deadline_us = pace
    if one is not None:
        engine = fleet.join(one)
    try:
        fleet.run(data[: one.model.window + 8 if one else 8], gap_us)
        if name != "killed":
            return fleet.run(data[:rows], gap_us, deadline_us)
        timer = _killer(engine.host.pid, rows * gap_us * 5e-7)  # type: ignore[attr-defined]
        timer.start()
        try:
            return fleet.run(data[:rows], gap_us, deadline_us)
        finally:
            timer.cancel()
    finally:
        if one is not None:
            fleet.leave()


def sick_neighbour(
    backend: str, variables: Mapping[str, str], rounds: int, pace: tuple[int, float, float]
) -> dict[str, Any]:
    """By neighbour: the well engine's percentiles (medians over the rounds), its faults and those
    of the neighbour, and whether its answers are what they are without one."""
    model = _loop_model(backend)
    neighbours = _neighbours(backend, model)
    data = np.random.default_rng(0).standard_normal((max(pace[0], WARM_ROWS), model.width))
    rows = data.astype(np.float32)
    core = loop_cores(1)[0]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in neighbours}
    well, warm = plan_of(backend, model), WARM_ROWS if backend == "resident" else model.window
    alone: list[Any] = []
    for _ in range(rounds):
        with Fleet([well], core, cores_beside(core), variables, room=2) as fleet:
            fleet.run(rows[:warm], pace[1])
            for name, one in neighbours.items():
                try:
                    driven = _turn(fleet, name, one, rows, pace)
                except TickrtError as error:
                    found[name].append({"failed": str(error)})
                    break
                alone = alone or [driven.outputs[0]]
                found[name].append(_entry(driven, model.window, alone[0]))
    return {name: _medians(entries) for name, entries in found.items()}


def _entry(driven: Driven, skip: int, alone: Any) -> dict[str, Any]:
    """A turn without its first rows, whose windows are those of two turns."""
    entry = summary(driven, skip)
    entry["same"] = bool(np.array_equal(driven.outputs[0, skip:], alone[skip:]))
    if len(driven.codes) > 1:
        entry["neighbour_faults"] = int((driven.codes[1, skip:] < 0).sum())
        entry["neighbour_nan"] = int(np.isnan(driven.outputs[1, skip:, 0]).sum())
    return entry


def _medians(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Of what was measured several times: medians; sums of what was counted."""
    found: dict[str, Any] = {"rounds": len(entries), "faults": 0}
    for key in dict.fromkeys(key for entry in entries for key in entry):
        values = [entry[key] for entry in entries if key in entry]
        if key == "same":
            found["same"] = all(values)
        elif key == "failed":
            found["failed"] = values
        elif key.startswith("p") or key == "max":
            found[key] = round(statistics.median(values), 3)
        else:
            found[key] = sum(values)
    p99 = [entry["p99"] for entry in entries if "p99" in entry]
    return {**found, "p99_of_rounds": p99}


def eight(backend: str, variables: Mapping[str, str], pace: tuple[int, float, float]) -> Any:
    """One alone, eight in loops of their own, eight in one loop: percentiles of each."""
    model, (rows, gap_us, _) = plan_of(backend, _loop_model(backend)), pace
    found: dict[str, Any] = {"blocks": model.blocks}
    found["alone"] = in_loops_of_their_own(model, 1, variables, rows, gap_us)
    found["eight_loops"] = in_loops_of_their_own(model, EIGHT, variables, rows, gap_us)
    core = loop_cores(1)[0]
    data = np.random.default_rng(0).standard_normal((rows, model.model.width), np.float32)
    with Fleet([model] * EIGHT, core, cores_beside(core), variables) as fleet:
        fleet.run(data[:WARM_ROWS], gap_us)
        driven = fleet.run(data, gap_us)
    skip = model.model.window
    found["one_loop"] = [summary(driven, skip, e) for e in range(EIGHT)]
    return found


def symbols(backend: str, variables: Mapping[str, str], pace: tuple[int, float, float]) -> Any:
    """Engines of the seed model at once, more and more; how many had a p99 of at most 6 µs."""
    one, (rows, gap_us, _) = plan_of(backend, _loop_model(backend, SEED)), pace
    steps: list[dict[str, Any]] = []
    carried, count = 0, 1
    while count <= MOST and (one.blocks * count <= MULTIPROCESSORS or count == 1):
        loops = in_loops_of_their_own(one, count, variables, rows, gap_us)
        worst = max(loop.get("p99", float("inf")) for loop in loops)
        steps.append({"engines": count, "worst_p99": worst if np.isfinite(worst) else None})
        steps[-1]["loops"] = loops
        if not worst <= LIMIT_US:
            break
        carried, count = count, 2 * count
    return {"blocks": one.blocks, "limit_us": LIMIT_US, "carried": carried, "steps": steps}


def _table(document: Mapping[str, Any]) -> None:
    """A line an engine, µs."""
    for name, entry in document.get("sick_neighbour", {}).items():
        text = f"p50 {entry.get('p50', '–'):>8}  p99 {entry.get('p99', '–'):>8}"
        theirs = f"its {entry.get('neighbour_faults', '–')}, NaN {entry.get('neighbour_nan', '–')}"
        same = "same answers" if entry.get("same") else "other answers"
        print(f"beside {name:8} {text}  {same}, faults {entry['faults']}, {theirs}")
        for why in entry.get("failed", ()):
            print(f"  failed: {why}")
    for name in ("alone", "eight_loops", "one_loop"):
        for i, entry in enumerate(document.get("eight", {}).get(name, ())):
            print(f"{name:12} {i}: p50 {entry.get('p50', '–')}  p99 {entry.get('p99', entry)}")
    for step in document.get("symbols", {}).get("steps", ()):
        print(f"seed × {step['engines']}: worst p99 {step['worst_p99']}")


def _measure(options: argparse.Namespace, variables: Mapping[str, str]) -> dict[str, Any]:
    pace = list(_PACES[options.backend])
    for i, given in enumerate((options.rows, options.gap)):
        pace[i] = given or pace[i]
    fixed = (int(pace[0]), float(pace[1]), float(pace[2]))
    work: dict[str, Callable[[], Any]] = {
        "eight": lambda: eight(options.backend, variables, fixed),
        "symbols": lambda: symbols(options.backend, variables, fixed),
        "sick_neighbour": lambda: sick_neighbour(options.backend, variables, options.rounds, fixed),
    }
    name = "eight" if options.eight else "symbols" if options.symbols else "sick_neighbour"
    return {"kind": name, "gap_us": fixed[1], "rows": fixed[0], name: work[name]()}


def main(argv: list[str] | None = None) -> int:
    """Measure one section, write it, print a short table last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=tuple(_PACES))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--eight", action="store_true")
    kind.add_argument("--symbols", action="store_true")
    parser.add_argument("--rows", type=int, help="of a turn")
    parser.add_argument("--gap", type=float, help="between two rows, µs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    on_gpu = not backends.probe("resident").runs
    options.backend = options.backend or ("resident" if on_gpu else "native")
    with ExitStack() as opened:
        try:
            variables: Mapping[str, str] = {}
            if options.backend == "resident":
                variables = opened.enter_context(share_gpu(MOST)).environment()
            found = _measure(options, variables)
        except (TickrtError, TranslateError) as error:
            print(f"nothing to measure here: {error}")
            return 0
    gpus = read_gpus()
    facts = {
        "backend": options.backend,
        "card": gpus.gpus[0].name if gpus.gpus else None,
        "loop_cores_available": len(process_cores()),
        "unit": "us",
    }
    out = options.out or RESULTS / "isolation.json"
    kept = json.loads(out.read_text()) if out.is_file() else {}
    kind = found.pop("kind")
    section = {"machine": machine(), **facts, **found}
    section["results"] = section.pop(kind)
    document = {"benchmark": "isolation", **kept, kind: section}
    out.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    _table({kind: section["results"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
