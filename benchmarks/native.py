"""How soon does a model answer as C of its own, beside the same model in ONNX Runtime?

Every reference model and, where their weights are, DeepLOB and BiN-CTABL: both backends as the
trading loop calls them, on the same rows, by turns in one run: `submit` (on the path) and `advance`
(after the order). On recorded rows with nothing between the ticks; with 1 MB of other work, as a
book and its features make it; and so on random rows, of which every column is new each time.

    python -m benchmarks.native [MODEL…] [--seconds N]

The result goes to ``results/native.json``; `benchmarks.native_docs` makes the table in the docs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._machine import write_result
from benchmarks._native_kernels import time_rows
from benchmarks.split import fitted, real_rows, recorded
from tickrt.engines.graph.check import LoopModel, loop_model, read_model
from tickrt.engines.native import prepare
from tickrt.engines.split.plan import plan
from tickrt.models import find_model
from tickrt.models.architectures.zoo import TRAINED, ZOO, make, trained
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.native.engine import NativeEngine
from tickrt.runtime.backends.onnxruntime.split import SplitEngine
from tickrt.runtime.backends.onnxruntime.whole import OrtEngine

SHIPPED = ("seed_lstm", "light_lstm")
MODELS = (*(name for name in ZOO if name != "lstm-l"), *TRAINED, *SHIPPED)
LARGE, OTHER_WEIGHTS = ("lstm-seed", "lstm-m"), ("bf16", "int8")  # models that gain by them
# Largest share of ONNX Runtime's time.
TARGETS = {"lstm-seed": 1 / 3, "lstm-s": 1 / 4, "mlp": 1 / 4, "lstm-m": 1 / 3}
# By case: whether rows are recorded ones, bytes of other work between two ticks.
CASES = {
    "back_to_back": (True, 0),
    "after_1_mb": (True, 1 << 20),
    "every_column_new": (False, 1 << 20),
}
_ROWS, _TURN, _UNCOUNTED = 10_000, 50, 5
_NOTHING = np.zeros(0, np.uint8)
QUANTILES = {"p50": 50, "p99": 99, "p999": 99.9}


def _model(name: str) -> LoopModel:
    if name in SHIPPED:
        return read_model(find_model(name).onnx)
    made = make(name) if name in ZOO else trained(name, recorded() / "weights_tlob")
    return loop_model(made.SerializeToString(), f"{name}.onnx")


def _figures(ticks: NDArray[np.int64]) -> dict[str, float]:
    times = ticks / (1e3 * ticks_per_ns())
    return {name: round(float(np.percentile(times, q)), 3) for name, q in QUANTILES.items()}


class _Timed:
    """An engine on a ring of its own, and how long its calls took."""

    def __init__(self, model: LoopModel, make: Callable[[RowRing], Engine]) -> None:
        self.ring = np.zeros((2 * model.window, model.width), np.float32)
        self.engine = make(RowRing(self.ring.ctypes.data, model.window, model.width))
        self.table = self.engine.handle()
        self.seq = 1
        self.times: dict[str, list[NDArray[np.int64]]] = {"step": [], "advance": []}

    def run(self, rows: NDArray[np.float32], memory: NDArray[np.uint8]) -> None:
        """A turn of consecutive rows; its first ones find the other engine's caches."""
        steps, advances = (np.zeros(len(rows), np.int64) for _ in range(2))
        time_rows(self.table, self.ring, rows, self.seq, memory, steps, advances)
        self.seq += len(rows)
        self.times["step"].append(steps[_UNCOUNTED:])
        self.times["advance"].append(advances[_UNCOUNTED:])

    def figures(self) -> dict[str, dict[str, float]]:
        """Since they were last asked for: quantiles in µs, by call."""
        found = {name: _figures(np.concatenate(times)) for name, times in self.times.items()}
        for times in self.times.values():
            times.clear()
        return found


def compare(name: str, seconds: float, recorded_rows: NDArray[np.float32]) -> dict[str, Any]:
    """Both engines on the same rows: times in µs, and what the comparison of `prepare` found."""
    model = _model(name)
    split = plan(model)
    used = split if split.usable else None
    shutil.rmtree(prepare(model, used).folder)  # what a first start takes is measured
    began = time.perf_counter()
    prepared = prepare(model, used)
    started = time.perf_counter() - began
    timed = {
        "onnxruntime": _Timed(
            model,
            lambda ring: OrtEngine(model, ring) if used is None else SplitEngine(model, used, ring),
        ),
        "native": _Timed(model, lambda ring: NativeEngine(model, prepared, ring)),
    }
    for weights in OTHER_WEIGHTS if name in LARGE else ():
        other = prepare(model, used, weights)
        timed[f"native {weights}"] = _Timed(model, partial(NativeEngine, model, other))
    errors = prepared.parity.errors
    result: dict[str, Any] = {
        "off_path": split.mode if split.usable else "none: it runs whole",
        "start_s": round(started, 3),
        "error": {"against_onnxruntime": errors.model, "of_a_step": errors.step},
    }
    known = fitted(recorded_rows, model.width)
    rng = np.random.default_rng(0)
    for engine in timed.values():  # complete windows, compiled loops
        engine.run(known[: 2 * model.window], _NOTHING)
        engine.figures()
    for label, (from_market, size) in CASES.items():
        memory, at = np.zeros(size, np.uint8), 0
        end = time.perf_counter() + seconds / len(CASES)
        while time.perf_counter() < end:
            at = (at + _TURN) % (len(known) - _TURN)
            rows = known[at : at + _TURN]
            if not from_market:
                rows = rng.standard_normal(rows.shape, np.float32)
            for engine in timed.values():
                engine.run(rows, memory)
        result[label] = {backend: engine.figures() for backend, engine in timed.items()}
        ours, theirs = (result[label][b]["step"] for b in ("native", "onnxruntime"))
        result[label]["step_ratio"] = round(ours["p50"] / theirs["p50"], 4)
    for engine in timed.values():
        engine.engine.close()
    return result


def line(entry: dict[str, Any]) -> str:
    """One model's figures."""
    parts = []
    for label in CASES:
        ours, theirs = entry[label]["native"], entry[label]["onnxruntime"]
        parts.append(
            f"{label}: {theirs['step']['p50']:.1f}/{theirs['step']['p99']:.1f} → "
            f"{ours['step']['p50']:.1f}/{ours['step']['p99']:.1f} µs "
            f"({entry[label]['step_ratio']:.2f}), then {theirs['advance']['p50']:.0f} → "
            f"{ours['advance']['p50']:.0f}"
        )
    return "; ".join(parts)


def missed(found: dict[str, Any]) -> list[str]:
    """Models that need a larger share of ONNX Runtime's time than they may."""
    return [
        f"{name} {label}: {found[name][label]['step_ratio']:.2f} > {TARGETS.get(name, 1.0):.2f}"
        for name in found
        for label in CASES
        if CASES[label][0] and found[name][label]["step_ratio"] > TARGETS.get(name, 1.0)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 1 when a target was missed."""
    parser = argparse.ArgumentParser(description="Generated C against ONNX Runtime.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join((*MODELS, "lstm-l")))
    parser.add_argument("--seconds", type=float, default=8.0, help="per model")
    options = parser.parse_args(arguments)
    rows = real_rows(recorded(), _ROWS)
    found = {}
    for name in options.models or MODELS:
        found[name] = compare(name, options.seconds, rows)
        print(f"  {name}: {line(found[name])}", flush=True)
    problems = missed(found)
    if not options.models:
        print(write_result("native", {"targets": TARGETS, "missed": problems, "models": found}))
    for problem in problems:
        print(f"missed: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
