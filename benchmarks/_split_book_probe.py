"""One turn of `benchmarks.split_book`, run with the sources of either revision on the path.

    python _split_book_probe.py EVENTS.npz divided|whole SPEC… → JSON on stdout

`whole` puts nothing off; a revision that cannot put off is asked for `divided` only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tickrt.cli.bench_pipeline import _config
from tickrt.report.report import to_json
from tickrt.runtime.session import Session

UNDIVIDED = 1 << 40  # levels a side that no book has


def play(data: Path, spec: str, divided: bool) -> dict[str, Any]:
    """The report of an order on every row, with the null engine."""
    with Session(_config(data, spec), keep_records=False) as session:
        if not divided:
            session.assembly.loop.deferred.depth[:] = UNDIVIDED
        made = to_json(session.run())
    return {name: made[name] for name in ("events_per_s", "latency_us")}


if __name__ == "__main__":
    path, how, *specs = sys.argv[1:]
    print(json.dumps({spec: play(Path(path), spec, how == "divided") for spec in specs}))
