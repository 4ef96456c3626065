"""What does tickrt itself cost between a tick and its order, without a model?

The recorded BTC capture runs through the whole loop, with the `null` engine, which answers at once,
and a taker that sends an order on every row: book, features, policy, risk, order, and the clock
reads in between. Each spec is played several times; the run with the median p99 counts, and all
are listed. ``tickrt bench pipeline`` does the same on any installation.

    python -m benchmarks.pipeline [--data FILE.npz] [--repetitions N]

The result goes to ``results/pipeline.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks._machine import write_result
from benchmarks.book_features import recorded_capture
from tickrt.cli.bench_pipeline import STAGES, measure
from tickrt.market.event_file import save_events

SPECS = ("light", "l2_100x100")
TARGET_US = {"p50": 1.0, "p99": 3.0}


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="event file; default: the recorded capture")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if data is None:
            capture = recorded_capture()
            data = save_events(Path(folder) / capture.path.name, capture.data, capture.meta)
        results = [measure(data, spec, options.repetitions, quiet=True) for spec in SPECS]
    for result in results:
        total = result["latency_us"]["tick_to_order"]
        result.pop("machine")
        print(f"{result['spec']}: p50 {total['p50']:.2f} µs, p99 {total['p99']:.2f} µs")
    write_result(
        "pipeline",
        {
            "data": {"file": data.name},
            "repetitions": options.repetitions,
            "target_us": TARGET_US,
            "stages": list(STAGES),
            "results": results,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
