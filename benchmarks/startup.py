"""How long until it runs? Import, help, first tick with a warm cache, and with a cold one.

"First tick": from the start of the process (warm) or of the session (cold) until events are taken.
Each is a fresh process. The cold one compiles every kernel into an empty cache folder; the warm
ones reuse it. Imports and commands are repeated and the median is reported.

    python -m benchmarks.startup [--repetitions N]

The result goes to ``results/startup.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._machine import write_result

TARGETS_S = {"import_s": 0.3, "help_s": 0.5, "warm_first_tick_s": 3.0}
EVENTS = 50_000
# What `tickrt run` does until its first tick.
OPEN = """
import os, sys
from pathlib import Path
from tickrt.cli import app
from tickrt.cli.options import SessionOptions, session_config
config = session_config(SessionOptions(data=[Path(sys.argv[1])], model="seed_lstm"))
from tickrt.runtime.session import Session
Session(config)
os._exit(0)
"""


def seconds(command: list[str], **environment: str) -> float:
    """Wall time of a process."""
    started = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    return time.perf_counter() - started


def tickrt(*arguments: str, cache: str) -> tuple[float, dict[str, Any]]:
    """Wall time and the JSON of a command."""
    command = [sys.executable, "-c", "import sys; from tickrt.cli import main; sys.exit(main())"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *arguments, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "XDG_CACHE_HOME": cache},
    )
    return time.perf_counter() - started, json.loads(done.stdout)


def measure(folder: Path, repetitions: int) -> dict[str, Any]:
    """All figures, in seconds."""
    bare, imported = [], []
    for _ in range(4 * repetitions):  # in pairs, since the difference is small
        bare.append(seconds([sys.executable, "-c", "pass"]))
        imported.append(seconds([sys.executable, "-c", "import tickrt"]))
    helped = [
        seconds([sys.executable, "-c", "from tickrt.cli import main; main(['--help'])"])
        for _ in range(repetitions)
    ]
    cache = str(folder / "cache")
    data = str(folder / "session.npz")
    tickrt("data", "simulate", "-o", data, "--events", str(EVENTS), cache=cache)
    _, cold = tickrt("run", "--data", data, "--out", str(folder / "out"), cache=cache)
    command = [sys.executable, "-c", OPEN, data]
    warm = [seconds(command, XDG_CACHE_HOME=cache) for _ in range(repetitions)]
    return {
        "python_s": statistics.median(bare),
        "import_s": statistics.median(b - a for a, b in zip(bare, imported, strict=True)),
        "help_s": statistics.median(helped),
        "cold_compile_s": cold["compile_s"],
        "cold_first_tick_s": cold["startup_s"],
        "warm_first_tick_s": statistics.median(warm),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.repetitions)
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    result = {"repetitions": options.repetitions, "targets_s": TARGETS_S, **figures}
    write_result("startup", result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
