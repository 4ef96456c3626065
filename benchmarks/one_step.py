"""One step of an LSTM: ONNX Runtime's own operator, or written out as a Gemm and element-wise?

For the reference LSTMs, the stack over a window of one row (ONNX Runtime's LSTM operator) against
`step` of the split model, which computes the same layers for one row with R·h + biases already in
its states. One thread, batch 1, by turns in the same run.

    python -m benchmarks.one_step [--seconds N]

The result goes to ``results/one_step.json``.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import onnx

from benchmarks._machine import write_result
from tickrt.engines.graph.ort import open_session
from tickrt.engines.split import split
from tickrt.models.architectures.zoo import recurrent

SHAPES = {"lstm-s": (2, 96, 64, 128), "lstm-m": (3, 160, 96, 192), "lstm-seed": (2, 128, 100, 402)}


def _call(model: onnx.ModelProto) -> Any:
    """A function that runs the model once, with everything bound."""
    session = open_session(model)
    binding, rng = session.io_binding(), np.random.default_rng(0)
    for entry in session.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in entry.shape]
        binding.bind_cpu_input(entry.name, rng.standard_normal(shape).astype(np.float32))
    for entry in session.get_outputs():
        binding.bind_output(entry.name)
    return lambda: session.run_with_iobinding(binding)


def _compare(shape: tuple[int, int, int, int], seconds: float) -> dict[str, Any]:
    layers, hidden, window, features = shape
    step = split(recurrent("LSTM", layers, hidden, window, features)).step
    assert step is not None
    calls = {
        "lstm_operator": _call(recurrent("LSTM", layers, hidden, 1, features)),
        "step": _call(step),
    }
    times: dict[str, list[int]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            for _ in range(20):
                started = time.perf_counter_ns()
                call()
                times[name].append(time.perf_counter_ns() - started)
    figures = {
        name: {
            f"p{q:g}".replace(".", ""): float(np.percentile(values, q)) / 1e3
            for q in (50, 99, 99.9)
        }
        for name, values in times.items()
    }
    ratio = figures["lstm_operator"]["p50"] / figures["step"]["p50"]
    return {"times_us": figures, "ratio": ratio}


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per model")
    options = parser.parse_args(arguments)
    results = {name: _compare(shape, options.seconds) for name, shape in SHAPES.items()}
    for name, result in results.items():
        p50 = {which: times["p50"] for which, times in result["times_us"].items()}
        print(f"{name}: {p50['lstm_operator']:.1f} → {p50['step']:.1f} µs, {result['ratio']:.2f} ×")
    write_result("one_step", {"models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
