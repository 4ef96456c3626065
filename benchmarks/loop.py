"""What does the shipped models' engine cost in the loop, whole and split, tick after tick?

The recorded BTC capture through the whole loop at full speed, ONNX Runtime on one thread: the same
session with the whole window on the path, and with the split (`step` on the path, the rest after
the order). Sessions alternate, so that noise hits both; the medians of the percentiles count.

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
SHOWN = ("p50", "p99", "p999", "max")


def _session(data: Path, model: str, split: bool) -> Report:
    strategy = StrategySettings(model=model)
    with Session(SessionConfig(data=(data,), strategies=(strategy,), split=split)) as session:
        return session.run()


def _typical(reports: list[Report]) -> dict[str, Any]:
    """Medians over the repetitions of one variant."""
    return {
        "off_path": reports[0].engine.split or "nothing",
        "orders": reports[0].orders,
        "rows_per_s": median(r.rows / r.wall_s for r in reports),
        "latency_us": {
            stage: {q: median(getattr(r.latency_us[stage], q) for r in reports) for q in SHOWN}
            for stage in STAGES
        },
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
            reports: dict[bool, list[Report]] = {False: [], True: []}
            for _ in range(options.repetitions):
                for split, found in reports.items():
                    found.append(_session(data, model, split))
            whole, split_ = _typical(reports[False]), _typical(reports[True])
            floor = to_json(reports[True][0])["floor"]
            engine = [v["latency_us"]["engine"]["p50"] for v in (whole, split_)]
            results[model] = {
                "whole": whole,
                "split": split_,
                "engine_ratio": engine[0] / engine[1],
            }
            print(f"{model}: engine p50 {engine[0]:.1f} → {engine[1]:.1f} µs")
    facts = {"events": options.events, "repetitions": options.repetitions, "floor_us": floor}
    write_result("loop", {**facts, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
