"""Has a change made the hot path slower? The same measurements on two revisions, by turns.

    python -m benchmarks.revisions --before REVISION [--turns N] [--events N]

The earlier revision is checked out into a temporary folder; each turn is a process of its own with
that revision's sources, before and after alternating, so that noise of a shared machine hits both.
Medians of the turns and their ratio count; a ratio above 1 is slower for times, faster for rates.
Both play the same simulated events from memory. The result goes to ``results/revisions.json``.
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
from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.simulation.simulator import simulate

ROOT = Path(__file__).resolve().parent.parent
PROBE = Path(__file__).with_name("_revision_probe.py")


def _turn(sources: Path, data: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(data)],
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{sources}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compare(before: list[dict[str, float]], after: list[dict[str, float]]) -> dict[str, Any]:
    table = {}
    for name in before[0]:
        old, new = (median(turn[name] for turn in turns) for turns in (before, after))
        table[name] = {"before": old, "after": new, "ratio": new / old}
    return table


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; nothing without a revision to compare with; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="the earlier revision")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    if options.before is None:
        print("name a revision with --before: nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory(prefix="tickrt-revisions-") as folder:
        earlier, data = Path(folder) / "before", Path(folder) / "events.npz"
        git("worktree", "add", "--detach", str(earlier), options.before)
        try:
            events, _ = simulate(events=options.events, seed=1)
            save_events(data, events, {"instrument": KNOWN["BTCUSD_PERP"].to_dict()})
            sources = (earlier / "src", ROOT / "src")
            for each in sources:
                _turn(each, data)  # compile
            turns = [[_turn(each, data) for each in sources] for _ in range(options.turns)]
        finally:
            git("worktree", "remove", "--force", str(earlier))
    table = _compare([turn[0] for turn in turns], [turn[1] for turn in turns])
    for name, row in table.items():
        print(f"{name:40} {row['before']:9.3f} {row['after']:9.3f}  ×{row['ratio']:.3f}")
    revisions = {"before": git("rev-parse", options.before), "after": git("rev-parse", "HEAD")}
    path = write_result("revisions", {"revisions": revisions, "turns": options.turns} | table)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
