"""The shipped models in the loop on recorded data, on a GPU: from the tick to the order.

The recorded BTC capture, played faster than it was recorded but not at full speed (a tick that
comes while the states are still being advanced waits for them): the same session with the resident
kernel and with ONNX Runtime, split, on the loop's own thread. Sessions alternate.

    python -m benchmarks.loop_resident [--data FILE.npz] [--events N] [--pace X] [--out F]

The result goes to ``results/loop_resident.json``. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._machine import machine, write_result
from benchmarks.book_features import recorded_capture
from benchmarks.loop import latencies
from tickrt import backends
from tickrt.cli.bench_pipeline import unbounded
from tickrt.config import SessionConfig, StrategySettings
from tickrt.market.event_file import load_events, save_events
from tickrt.observe.nvml import read_gpus
from tickrt.report.report import to_json
from tickrt.runtime.report_types import Report
from tickrt.runtime.session import Session

MODELS = ("seed_lstm", "light_lstm")
BACKENDS = ("resident", "onnxruntime")
STAGES = ("tick_to_order", "tick_to_decision", "engine", "features", "book")
_CORE = 3


def _session(data: Path, model: str, backend: str, pace: float) -> Report:
    policy, risk = unbounded()
    eager = replace(policy, enter_threshold=0.01, exit_threshold=0.0)
    strategy = StrategySettings(model=model, policy=eager, risk=risk)
    core = _CORE if (os.cpu_count() or 1) > _CORE else None
    config = SessionConfig(
        data=(data,), strategies=(strategy,), backend=backend, pace=pace, pin_cpu=core
    )
    with Session(config) as session:
        return session.run()


def _typical(reports: list[Report]) -> dict[str, Any]:
    found = to_json(reports[0])
    return {
        "engine": found["engine"],
        "rows": reports[0].rows,
        "orders": reports[0].orders,
        "faults": reports[0].faults,
        "latency_us": latencies(reports, STAGES),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a line a model, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="event file; default: the recorded capture")
    parser.add_argument("--events", type=int, default=200_000, help="play only the first N events")
    parser.add_argument("--pace", type=float, default=20.0, help="times as fast as recorded")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    gpus = read_gpus()
    here = backends.probe("resident")
    why = here.runs or here.builds or ("" if gpus.gpus else str(gpus.problem))
    if why:
        print(f"nothing to measure here: {why}")
        return 0
    file = load_events(options.data) if options.data else recorded_capture()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = save_events(Path(folder) / "part.npz", file.data[: options.events], file.meta)
        for model in MODELS:
            reports: dict[str, list[Report]] = {backend: [] for backend in BACKENDS}
            for _ in range(options.repetitions):
                for backend, found in reports.items():
                    found.append(_session(data, model, backend, options.pace))
            results[model] = {backend: _typical(found) for backend, found in reports.items()}
            results[model]["floor"] = to_json(reports["resident"][0])["floor"]
            for backend in BACKENDS:
                entry = results[model][backend]["latency_us"]
                print(model, backend, json.dumps({s: entry[s] for s in STAGES[:3]}), flush=True)
    facts = {
        "card": gpus.gpus[0].name,
        "events": options.events,
        "pace": options.pace,
        "repetitions": options.repetitions,
        **results,
    }
    if options.out is None:
        write_result("loop_resident", facts)
    else:
        document = {"benchmark": "loop_resident", "machine": machine(), **facts}
        options.out.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
