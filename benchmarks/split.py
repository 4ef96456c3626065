"""How much of a model is left on the path after tick-split, and how long does it take?

Every reference model (`models.architectures.zoo`) and, where their weights are, DeepLOB and
BiN-CTABL: the whole window in ONNX Runtime against `step`, one thread, batch 1, by turns in the
same run. Parity on 1,000 consecutive windows of the recorded BTC capture.

    python -m benchmarks.split [MODEL…] [--seconds N] [--windows N] [--realtime]

`--realtime` measures under SCHED_FIFO, so that other work on the machine is not measured with it.

The result goes to ``results/split.json``; `benchmarks.split_docs` makes the table and the plot.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import write_result
from benchmarks.book_features import CAPTURE
from tickrt.engines.split.compare import compare
from tickrt.environment import data_folder
from tickrt.models.architectures.zoo import TRAINED, ZOO, make, trained

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"lstm-s": 10, "lstm-m": 25, "lstm-l": 25, "lstm-seed": 25, "deeplob": 8}
PARITY = 1e-5
SPEC = "l2_100x100"


def recorded() -> Path:
    """Where the recorded data is."""
    folder = data_folder(ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        sys.exit(f"recorded market data is not in {folder}: set TICKRT_DATA")
    return folder


def real_rows(folder: Path, count: int) -> np.ndarray:
    """`count` consecutive rows of the reference spec, standardised and clipped: float32 [n, F]."""
    from tickrt.feature.spec import load_spec
    from tickrt.feeds.captures.convert import convert
    from tickrt.training.dataset import load_session

    with tempfile.TemporaryDirectory() as temporary:
        events = Path(temporary) / "btcusd_perp.npz"
        convert([folder / "binance_cm" / name for name in CAPTURE], events)
        rows = load_session(events, load_spec(SPEC), horizon_ns=100_000_000).rows
    rows = rows[-count:]
    spread = np.maximum(rows.std(axis=0), 1e-6)
    return np.clip((rows - rows.mean(axis=0)) / spread, -8, 8).astype(np.float32)


def fitted(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows of `width` columns: the first ones, repeated where a model reads more."""
    return rows[:, np.arange(width) % rows.shape[1]]


@contextmanager
def real_time(wanted: bool) -> Iterator[None]:
    """Run under SCHED_FIFO, where it is wanted."""
    if wanted:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def run(names: list[str], seconds: float, windows: int, realtime: bool) -> dict[str, Any]:
    """Compare the models by name."""
    folder = recorded()
    rows = real_rows(folder, windows + 127)
    found: dict[str, Any] = {}
    for name in names:
        model = make(name) if name in ZOO else trained(name, folder / "weights_tlob")
        window, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
        own = fitted(rows, width)[-(windows + window - 1) :]
        longer = 5 * seconds if name == "lstm-l" else seconds
        found[name] = compare(model, rows=own, seconds=longer, around=lambda: real_time(realtime))
        print(f"  {name}: {line(found[name])}", flush=True)
    return found


def line(entry: dict[str, Any]) -> str:
    """One model's figures."""
    if not entry["split"]:
        return f"runs whole: {entry['why_not']}"
    full, step = entry["times_us"]["full"], entry["times_us"]["step"]
    return (
        f"{full['p50']:.1f}/{full['p99']:.1f} → {step['p50']:.1f}/{step['p99']:.1f} µs, "
        f"{entry['speedup']:.1f} ×, {entry['share_on_path']:.2%} on the path, "
        f"parity {entry['parity']['max_rel']:.1e}"
    )


def missed(found: dict[str, Any]) -> list[str]:
    """The targets that were not reached."""
    late = [
        f"{name}: {found[name]['speedup']:.1f} × < {target} ×"
        for name, target in TARGETS.items()
        if name in found and found[name]["speedup"] < target
    ]
    wrong = [
        f"{name}: parity {entry['parity']['max_rel']:.1e} > {PARITY}"
        for name, entry in found.items()
        if entry["split"] and not entry["parity"]["max_rel"] <= PARITY
    ]
    return late + wrong


def main(arguments: list[str] | None = None) -> int:
    """Run and write the result; 1 when a target was missed."""
    known = [*ZOO, *TRAINED]
    parser = argparse.ArgumentParser(description="Whole models against their split.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(known))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--realtime", action="store_true", help="measure under SCHED_FIFO")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.models) - set(known))
    if unknown:
        parser.error(f"no model named {', '.join(unknown)}; there are {', '.join(known)}")
    found = run(options.models or known, options.seconds, options.windows, options.realtime)
    problems = missed(found)
    result = {
        "threads": 1,
        "realtime": options.realtime,
        "targets": TARGETS,
        "missed": problems,
        "models": found,
    }
    if not options.models:
        print(write_result("split", result))
    for problem in problems:
        print(f"missed: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
