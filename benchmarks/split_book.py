"""What does it save to apply before the order only the levels that a row can see?

Tick-to-order without a model, as in `benchmarks.pipeline`, on the recorded BTC capture, by turns:
an earlier revision with the book in one (a process of its own, its sources in a temporary folder),
these sources, and these sources with nothing put off (a depth that no book has), which tells what
the splitting alone does. Medians of the turns count, since noise of a shared machine hits all.

    python -m benchmarks.split_book --before REVISION [--data FILE.npz] [--turns N]

The result goes to ``results/split_book.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._machine import write_result
from benchmarks.book_features import recorded_capture
from benchmarks.revisions import ROOT, git
from tickrt.market.event_file import save_events

SPECS = ("light", "l2_100x100")
TARGET_US = {"light": 2.5, "l2_100x100": 4.0}
STAGES = ("tick_to_order", "book", "features", "decision", "advance")
SHOWN = ("p50", "p90", "p99", "p999")
PROBE = Path(__file__).with_name("_split_book_probe.py")


def _turn(sources: Path, data: Path, divided: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(data), "divided" if divided else "whole", *SPECS],
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{sources}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _typical(turns: list[dict[str, Any]], spec: str) -> dict[str, Any]:
    """Medians over the turns of one variant."""
    return {
        "events_per_s": median(turn[spec]["events_per_s"] for turn in turns),
        "latency_us": {
            stage: {q: median(turn[spec]["latency_us"][stage][q] for turn in turns) for q in SHOWN}
            for stage in STAGES
        },
        "turns": [turn[spec]["latency_us"]["tick_to_order"]["p99"] for turn in turns],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; nothing without a revision to compare with; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="a revision with the book in one")
    parser.add_argument("--data", type=Path, help="event file; default: the recorded capture")
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args(arguments)
    if options.before is None:
        print("name a revision with --before: nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory(prefix="tickrt-split-book-") as folder:
        earlier, data = Path(folder) / "before", options.data
        if data is None:
            capture = recorded_capture()
            data = save_events(Path(folder) / capture.path.name, capture.data, capture.meta)
        git("worktree", "add", "--detach", str(earlier), options.before)
        try:
            variants = {
                "before": (earlier / "src", True),
                "split": (ROOT / "src", True),
                "nothing put off": (ROOT / "src", False),
            }
            for sources, divided in variants.values():
                _turn(sources, data, divided)  # compile
            turns: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
            for _ in range(options.turns):
                for name, (sources, divided) in variants.items():
                    turns[name].append(_turn(sources, data, divided))
        finally:
            git("worktree", "remove", "--force", str(earlier))
    results = {
        spec: {name: _typical(found, spec) for name, found in turns.items()} for spec in SPECS
    }
    for spec, found in results.items():
        p99 = {name: v["latency_us"]["tick_to_order"]["p99"] for name, v in found.items()}
        print(spec, ", ".join(f"{name} {value:.2f}" for name, value in p99.items()), "µs p99")
    facts = {
        "data": {"file": data.name},
        "revisions": {
            "before": git("rev-parse", options.before),
            "after": git("rev-parse", "HEAD"),
        },
        "turns": options.turns,
        "target_p99_us": TARGET_US,
    }
    print(write_result("split_book", {**facts, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
