"""What does it cost to read events in pieces, and what does it save in memory?

A simulated session is written to a file, as `tickrt data simulate` does, and read by `load_events`
(the whole array) and by `merge_streams` (in pieces, as a session feeds its ring), each to its last
event, checked, with batches marked, and by `numpy.load`, which does neither. They take turns in
this process, so that all find the file in the system's cache; the median is reported. The same file
without marks is what hftbacktest's converters write: the stream reads it twice. The peak of
resident memory that reading adds is that of a fresh process each.

    python -m benchmarks.event_stream [--events N] [--repetitions N]

The result goes to ``results/event_stream.json``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import write_result
from tickrt.compile.codes import BATCH_END
from tickrt.market.event_file import load_events, save_events
from tickrt.market.event_stream import merge_streams, open_stream
from tickrt.simulation.simulator import simulate

# In a process of its own: what reading adds to the peak of resident memory, in MiB.
PEAK = """
import sys
from pathlib import Path
from benchmarks.event_stream import READERS

def peak_mib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before = peak_mib()
READERS[sys.argv[1]](Path(sys.argv[2]))
print(peak_mib() - before)
"""


def numpy_load(path: Path) -> int:
    """How many events; they are unpacked, and that is all."""
    return len(np.load(path)["data"])


def load(path: Path) -> int:
    """How many events; all of them are held."""
    return len(load_events(path).data)


def stream(path: Path) -> int:
    """How many events; one piece is held."""
    return sum(len(piece) for piece in merge_streams([open_stream(path)]))


READERS: dict[str, Callable[[Path], int]] = {
    "numpy": numpy_load,
    "load": load,
    "stream": stream,
}


def added_mib(name: str, path: Path) -> float:
    """What reading adds to the peak of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(path)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def measure(path: Path, repetitions: int) -> dict[str, Any]:
    """Events a second and MiB of each reader."""
    rates: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(repetitions):
        for name, read in READERS.items():
            started = time.perf_counter()
            count = read(path)
            rates[name].append(count / (time.perf_counter() - started))
    return {
        name: {
            "events_per_s": statistics.median(rates[name]),
            "added_mib": added_mib(name, path),
        }
        for name in READERS
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    events, meta = simulate(events=options.events)
    result: dict[str, Any] = {"events": len(events), "repetitions": options.repetitions}
    with tempfile.TemporaryDirectory() as folder:
        path = save_events(Path(folder) / "marked.npz", events, meta)
        result["file_mib"] = path.stat().st_size / 2**20
        result["marked"] = measure(path, options.repetitions)
        events["ev"] &= ~np.uint64(BATCH_END)
        path = save_events(Path(folder) / "unmarked.npz", events, meta)
        result["unmarked"] = measure(path, options.repetitions)
    for kind in ("marked", "unmarked"):
        for name, figures in result[kind].items():
            rate, mib = figures["events_per_s"], figures["added_mib"]
            print(f"{kind}, {name}: {rate / 1e6:.2f} M events/s, {mib:.0f} MiB")
    write_result("event_stream", result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
