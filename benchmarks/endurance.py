"""A million rows through one engine: does its memory grow, do its answers drift?

    python -m benchmarks.endurance [--backend native|resident|reference] [--models lstm-s,…]
                                   [--rows N] [--gap µs] [--out F]

At ten points: resident memory of the loop's process and of the engine host, memory in use on the
GPU (by everybody, from NVML), percentiles of the rows since the last point. The first and the last
200 complete windows are compared with ONNX Runtime (float32, whole windows): an error that grew
with a million rows would show as the difference between the two.

The result goes to ``results/endurance.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._fleet import plan_of
from benchmarks._hot import hot_core, on_core
from benchmarks._machine import machine, status_mb, write_result
from tickrt import backends
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.graph.ort import OrtGraph
from tickrt.engines.translate import TranslateError
from tickrt.errors import TickrtError
from tickrt.host.cores import cores_beside
from tickrt.models.architectures.zoo import make
from tickrt.observe.nvml import read_gpus
from tickrt.runtime.engine_bench import Feed, percentiles

POINTS, COMPARED = 10, 200
_AT_ONCE = 10_000  # rows of a call
Floats = NDArray[np.float32]


def _memory(feed: Feed) -> dict[str, float | None]:
    host = getattr(feed.engine, "host", None)
    gpus = read_gpus().gpus
    return {
        "loop_mb": status_mb(os.getpid(), "VmRSS"),
        "host_mb": None if host is None else status_mb(host.pid, "VmRSS"),
        "gpu_mib": gpus[0].memory_used_mib if gpus else None,
    }


def _error(model: LoopModel, rows: Floats, last: int, found: Floats) -> dict[str, float]:
    """The largest error of answers `found` [n, m] to the windows that end with `rows` number
    last − n + 1 … last (they repeat): absolute, and relative to the window's largest output."""
    graph, count = OrtGraph(model.content), len(found)
    worst = {"absolute": 0.0, "relative": 0.0}
    for i in range(count):
        at = np.arange(last - count + i + 1 - model.window, last - count + i + 1) % len(rows)
        expected = graph.run({model.input: rows[None, at]})[model.output].ravel()
        error = float(np.abs(found[i] - expected).max())
        worst["absolute"] = max(worst["absolute"], error)
        worst["relative"] = max(worst["relative"], error / float(np.abs(expected).max()))
    return worst


def _growth(points: list[dict[str, Any]]) -> Mapping[str, float | None]:
    """From the first point, by which everything has run once, to the last."""
    names = ("loop_mb", "host_mb", "gpu_mib")
    ends = {name: (points[0][name], points[-1][name]) for name in names}
    return {n: None if None in (a, b) else round(b - a, 3) for n, (a, b) in ends.items()}


def endure(backend: str, name: str, count: int, gap_us: float) -> dict[str, Any]:
    """`count` rows through one engine: memory and percentiles on the way, errors at both ends.

    Raises:
        TickrtError, TranslateError: it cannot run so; says why.
    """
    model = loop_model(make(name).SerializeToString(), name)
    one, core = plan_of(backend, model), hot_core()
    rows = np.random.default_rng(0).standard_normal((_AT_ONCE, model.width), np.float32)
    chunk = min(_AT_ONCE, max(count // POINTS, model.window + COMPARED))
    rows = rows[:chunk]
    feed = Feed(
        model.window, model.width, lambda ring: one.open(ring, cores_beside(core), variables={})
    )
    try:
        points: list[dict[str, Any]] = []
        sent, took, first = 0, [], np.zeros((0, 0), np.float32)
        found: dict[str, Any] = {"model": name, "backend": backend, "gap_us": gap_us}
        _memory(feed)  # loads what reads it
        while sent < count or not points:
            fed = on_core(core, partial(feed.run, rows, gap_us))
            if sent == 0:
                first = fed.outputs[model.window - 1 :][:COMPARED]
            sent += len(rows)
            took.append(fed.answers[fed.answers > 0])
            if sent * POINTS >= count * (len(points) + 1):
                times = percentiles(np.concatenate(took))
                points.append({"rows": sent, **_memory(feed), "on_path_us": times})
                took = []
        found |= {"rows": sent, "growth": _growth(points), "points": points}
        end = model.window - 1 + len(first)
        found["first"] = _error(model, rows, end, first)
        found["last"] = _error(model, rows, sent, fed.outputs[-COMPARED:])
        return found
    finally:
        feed.close()


def main(argv: list[str] | None = None) -> int:
    """Measure, print a line a model, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("native", "resident", "reference"))
    parser.add_argument("--models", default="lstm-s")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--gap", type=float, default=20.0, help="between two rows, µs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    on_gpu = not backends.probe("resident").runs
    backend = options.backend or ("resident" if on_gpu else "native")
    results = []
    for name in options.models.split(","):
        try:
            found = endure(backend, name, options.rows, options.gap)
        except (TickrtError, TranslateError) as error:
            found = {"model": name, "backend": backend, "skipped": str(error)}
        results.append(found)
        print(json.dumps({k: v for k, v in found.items() if k != "points"}), flush=True)
    gpus = read_gpus()
    card = gpus.gpus[0].name if gpus.gpus and backend == "resident" else None
    document = {"card": card, "results": results}
    if options.out is None:
        write_result("endurance", document)
    else:
        text = json.dumps({"benchmark": "endurance", "machine": machine(), **document}, indent=2)
        options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
