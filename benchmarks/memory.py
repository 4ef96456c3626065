"""Does the memory of a run grow with its session?

`tickrt run` of a shipped model over a long simulated session, in a process of its own whose
resident memory is looked at every 50 ms: after the start (everything loaded and compiled), through
the run, and at its peak.

    python -m benchmarks.memory [--events N] [--model NAME]

The result goes to ``results/memory.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._machine import status_mb, write_result
from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.simulation.simulator import simulate

TARGET_MB = 200
EVERY_S = 0.05


def _watch(command: list[str]) -> tuple[list[tuple[float, float]], float, dict[str, Any]]:
    """(seconds, MB) through the life of a process, its peak, and the report that it printed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        started, samples, peak = time.perf_counter(), [], 0.0
        while process.poll() is None:
            resident, highest = (status_mb(process.pid, name) for name in ("VmRSS", "VmHWM"))
            if resident is not None and highest is not None:
                samples.append((time.perf_counter() - started, resident))
                peak = max(peak, highest)
            time.sleep(EVERY_S)
        assert process.stdout is not None
        report: dict[str, Any] = json.loads(process.stdout.read())
    return samples, peak, report


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--model", default="seed_lstm")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tickrt-memory-") as folder:
        data = Path(folder) / "long.npz"
        events, _ = simulate(events=options.events, seed=1)
        save_events(data, events, {"instrument": KNOWN["BTCUSD_PERP"].to_dict()})
        played = len(events)
        del events
        command = [sys.executable, "-m", "tickrt", "run", "--data", str(data)]
        command += ["--model", options.model, "--out", str(Path(folder) / "out"), "--json"]
        samples, peak, report = _watch(command)
    begin = samples[-1][0] - report["wall_s"]  # about: the report is written after the run
    running = [mb for at, mb in samples if at > begin + 0.2 * report["wall_s"]]
    fifth = max(len(running) // 5, 1)
    first, last = median(running[:fifth]), median(running[-fifth:])
    result = {
        "events": played,
        "rows": report["rows"],
        "lost_records": report["lost_records"],
        "wall_s": report["wall_s"],
        "resident_mb": {"early in the run": first, "late in the run": last, "peak": peak},
        "target_mb": TARGET_MB,
        "samples": [
            [round(at, 2), round(mb, 1)] for at, mb in samples[:: max(len(samples) // 60, 1)]
        ],
    }
    print(f"{played:,} events: {first:.0f} → {last:.0f} MB resident, peak {peak:.0f} MB")
    print(write_result("memory", result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
