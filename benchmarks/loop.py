"""What does the shipped models' engine cost in the loop, tick after tick?

The recorded BTC capture through the whole loop at full speed: the same session with the whole
window on the path in ONNX Runtime on one thread; with the split (`step` on the path, the rest after
the order); and with the split as generated C. Sessions alternate, so that noise hits all; the
medians of the percentiles count.

    python -m benchmarks.loop [--data FILE.npz] [--events N] [--repetitions N]

The result goes to ``results/loop.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._machine import write_result
from benchmarks.book_features import recorded_capture
from tickrt.config import SessionConfig, StrategySettings
from tickrt.market.event_file import load_events, save_events
from tickrt.report.report import to_json
from tickrt.runtime.report_types import Report
from tickrt.runtime.session import Session

MODELS = ("seed_lstm", "light_lstm")
STAGES = ("tick_to_order", "tick_to_decision", "engine", "advance")
# (backend, split) by variant.
VARIANTS = {
    "whole": ("onnxruntime", False),
    "split": ("onnxruntime", True),
    "native": ("native", True),
}
SHOWN = ("p50", "p99", "p999", "max")


def _session(data: Path, model: str, variant: str) -> Report:
    backend, split = VARIANTS[variant]
    strategy = StrategySettings(model=model)
    config = SessionConfig(data=(data,), strategies=(strategy,), split=split, backend=backend)
    with Session(config) as session:
        return session.run()


def latencies(reports: list[Report], stages: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Percentiles by stage, µs: medians over the repetitions."""
    return {
        stage: {q: median(getattr(r.latency_us[stage], q) for r in reports) for q in SHOWN}
        for stage in stages
    }


def _typical(reports: list[Report]) -> dict[str, Any]:
    """Medians over the repetitions of one variant."""
    return {
        "off_path": reports[0].engine.split or "nothing",
        "orders": reports[0].orders,
        "rows_per_s": median(r.rows / r.wall_s for r in reports),
        "latency_us": latencies(reports, STAGES),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="event file; default: the recorded capture")
    parser.add_argument("--events", type=int, default=120_000, help="play only the first N events")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    file = load_events(options.data) if options.data else recorded_capture()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = save_events(Path(folder) / "part.npz", file.data[: options.events], file.meta)
        for model in MODELS:
            reports: dict[str, list[Report]] = {variant: [] for variant in VARIANTS}
            for _ in range(options.repetitions):
                for variant, found in reports.items():
                    found.append(_session(data, model, variant))
            results[model] = {variant: _typical(found) for variant, found in reports.items()}
            floor = to_json(reports["split"][0])["floor"]
            latency = {name: results[model][name]["latency_us"] for name in VARIANTS}
            engine = {name: stages["engine"]["p50"] for name, stages in latency.items()}
            results[model]["engine_ratio"] = engine["whole"] / engine["split"]
            results[model]["native_ratio"] = engine["split"] / engine["native"]
            shown = " → ".join(f"{us:.1f}" for us in engine.values())
            order = latency["native"]["tick_to_order"]
            print(
                f"{model}: engine p50 {shown} µs; tick to order, native: p50 "
                f"{order['p50']:.1f} µs, p99 {order['p99']:.1f} µs"
            )
    facts = {"events": options.events, "repetitions": options.repetitions, "floor_us": floor}
    write_result("loop", {**facts, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
