"""How soon does a model answer as C of its own, beside the same model in ONNX Runtime?

Every reference model and, where their weights are, DeepLOB and BiN-CTABL: both backends as the
trading loop calls them, on the same rows, by turns in one run: `submit` (on the path) and `advance`
(after the order). Once with nothing between the ticks, once with 1 MB of other work, as a book and
its features make it.

    python -m benchmarks.native [MODEL…] [--seconds N]

The result goes to ``results/native.json``.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._machine import write_result
from benchmarks._native_kernels import time_rows
from benchmarks.split import recorded
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
# Largest share of ONNX Runtime's time.
TARGETS = {"lstm-seed": 1 / 3, "lstm-s": 1 / 4, "mlp": 1 / 4, "lstm-m": 1 / 3}
BETWEEN = {"back_to_back": 0, "after_1_mb": 1 << 20}
QUANTILES = {"p50": 50, "p99": 99, "p999": 99.9}


def _model(name: str) -> LoopModel:
    if name in SHIPPED:
        return read_model(find_model(name).onnx)
    made = make(name) if name in ZOO else trained(name, recorded() / "weights_tlob")
    return loop_model(made.SerializeToString(), f"{name}.onnx")


def _figures(ticks: NDArray[np.int64]) -> dict[str, float]:
    times = ticks / (1e3 * ticks_per_ns())
    return {name: round(float(np.percentile(times, q)), 3) for name, q in QUANTILES.items()}


def compare(name: str, seconds: float) -> dict[str, Any]:
    """Both engines on the same rows: times in µs, and what the comparison of `prepare` found."""
    model = _model(name)
    split = plan(model)
    used = split if split.usable else None
    began = time.perf_counter()
    prepared = prepare(model, used)
    ring = np.zeros((2 * model.window, model.width), np.float32)
    rows = RowRing(ring.ctypes.data, model.window, model.width)
    engines: dict[str, Engine] = {
        "onnxruntime": OrtEngine(model, rows) if used is None else SplitEngine(model, used, rows),
        "native": NativeEngine(model, used, prepared, rows),
    }
    result: dict[str, Any] = {
        "off_path": split.mode if split.usable else "none: it runs whole",
        "start_s": round(time.perf_counter() - began, 3),
        "error": {"onnxruntime": prepared.parity.errors.model, "step": prepared.parity.errors.step},
    }
    tables = np.stack([engine.handle() for engine in engines.values()])
    rng = np.random.default_rng(0)
    first = 1
    for label, size in BETWEEN.items():
        memory = np.zeros(size, np.uint8)
        done: list[tuple[Any, Any]] = []
        end = time.perf_counter() + seconds / 2
        while len(done) < 3 or time.perf_counter() < end:
            fresh = rng.standard_normal((100, model.width)).astype(np.float32)
            steps, advances = (np.zeros((2, len(fresh)), np.int64) for _ in range(2))
            time_rows(tables, ring, fresh, first, memory, steps, advances)
            first += len(fresh)
            done.append((steps, advances))
        steps, advances = (np.concatenate(part, axis=1) for part in zip(*done[1:], strict=True))
        result[label] = {
            backend: {"step": _figures(steps[e]), "advance": _figures(advances[e])}
            for e, backend in enumerate(engines)
        }
        result[label]["step_ratio"] = round(
            result[label]["native"]["step"]["p50"] / result[label]["onnxruntime"]["step"]["p50"], 4
        )
    for engine in engines.values():
        engine.close()
    return result


def line(entry: dict[str, Any]) -> str:
    """One model's figures."""
    parts = []
    for label in BETWEEN:
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
        for label in BETWEEN
        if found[name][label]["step_ratio"] > TARGETS.get(name, 1.0)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 1 when a target was missed."""
    parser = argparse.ArgumentParser(description="Generated C against ONNX Runtime.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join((*MODELS, "lstm-l")))
    parser.add_argument("--seconds", type=float, default=8.0, help="per model")
    options = parser.parse_args(arguments)
    found = {}
    for name in options.models or MODELS:
        found[name] = compare(name, options.seconds)
        print(f"  {name}: {line(found[name])}", flush=True)
    problems = missed(found)
    if not options.models:
        print(write_result("native", {"targets": TARGETS, "missed": problems, "models": found}))
    for problem in problems:
        print(f"missed: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
