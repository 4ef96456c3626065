"""TensorRT in an engine host: from the store of a row to its answer in the loop's memory.

Each model is built into a bundle (tick-split, float32 and float16) by the TensorRT of another
interpreter, loaded as a session loads it, and fed row by row; every answer is compared with ONNX
Runtime on the whole window. Beside them two floors on the same path: an answer from the host's
Python without a GPU, and a graph of one node.

    python -m benchmarks.tensorrt [--engine-python PY] [--models lstm-s,…] [--rows N] [--out F]

The result goes to ``results/tensorrt.json``. Without a GPU or TensorRT it says so and measures
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks._floor_kernel import KERNELS
from benchmarks._machine import machine, write_result
from tickrt import backends
from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import open_session
from tickrt.errors import TickrtError
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.literals import Precision
from tickrt.models.architectures.zoo import make
from tickrt.observe.nvml import read_gpus
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.tensorrt.builder import Library
from tickrt.runtime.engine_bench import Feed, percentiles
from tickrt.runtime.model_source import load_source

MODELS = ["lstm-s", "lstm-m", "lstm-seed", "gru", "mlp", "tcn", "transformer-1"]
WHOLE = ("mlp", "tcn")  # also as whole windows; recurrent ones need cuDNN for that in 8.5
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
GAPS_US = (200.0, 0.0)
_CORE = 3  # of the loop's thread, where there are as many
_WARM_RUNS = 2
_FLOOR_WIDTH, _FLOOR_WINDOW = 402, 2


def _host(python: str, kernels: dict[str, str] | None = None) -> HostProcess:
    """A host that finds this package as well, however its interpreter is started."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = {"PYTHONPATH": path, "TICKRT_HOST_PATH": root}
    return HostProcess(python, kernels=kernels, environment=environment)


@contextmanager
def _pinned() -> Iterator[None]:
    """This thread on a core of its own; hosts that were started before stay where they are."""
    before = os.sched_getaffinity(0)
    if _CORE in before:
        os.sched_setaffinity(0, {_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _timed(feed: Feed, data: Any, skip: int) -> tuple[dict[str, Any], list[Any]]:
    """Percentiles by gap, and the answers of every run."""
    found: dict[str, Any] = {}
    outputs = []
    with _pinned():
        for _ in range(_WARM_RUNS):  # the card's clocks rise when it has work
            feed.run(data, GAPS_US[0])
        for gap in GAPS_US:
            fed = feed.run(data, gap)
            found[f"gap_{gap:g}_us"] = percentiles(fed.answers[skip:])
            found[f"gap_{gap:g}_advance_us"] = percentiles(fed.advances[skip:])
            outputs.append(fed.outputs[skip:])
    return found, outputs


def floor(kind: str, python: str, rows: int) -> dict[str, Any]:
    """A floor's latency. Raises TickrtError: it cannot run; says why."""
    model = LoopModel(kind, b"", "", "rows", "out", _FLOOR_WINDOW, _FLOOR_WIDTH, 3, {})

    def engine(ring: RowRing) -> MailboxEngine:
        parcel = Parcel(kind, kind, {"none": b"-"})
        return MailboxEngine(kind, model, ring, _host(python, KERNELS), parcel)

    feed = Feed(_FLOOR_WINDOW, _FLOOR_WIDTH, engine)
    try:
        data = np.random.default_rng(0).standard_normal((rows, _FLOOR_WIDTH), np.float32)
        return _timed(feed, data, _FLOOR_WINDOW)[0]
    finally:
        feed.close()


def measure(
    name: str, precision: Precision, split: bool, python: str, rows: int, folder: Path
) -> dict[str, Any]:
    """Build, load and time one model. Raises TickrtError: it cannot be built or run; says why."""
    path, out = folder / f"{name}.onnx", folder / f"{name}-{precision}.bundle"
    graph = make(name)
    onnx.save(graph, path)
    began = time.perf_counter()
    request = BuildRequest(
        path, backend="tensorrt", engine_python=python, precision=precision, split=split
    )
    built = build(request)
    write_built(built, out)
    result: dict[str, Any] = {
        "build_s": round(time.perf_counter() - began, 1),
        "engines": built.report["engines"],
        "build_parity": built.report["parity"],
        "warnings": built.report["warnings"][:5],
    }
    config = SessionConfig(
        data=(path,), backend="tensorrt", engine_python=python or None, allow_unsigned=True
    )
    source = load_source(StrategySettings(model=str(out)), config)
    model = source.model
    feed = Feed(model.window, model.width, lambda r: backends.load("tensorrt", source, r, config))
    try:
        data = np.random.default_rng(0).standard_normal((rows, model.width), np.float32)
        timed, outputs = _timed(feed, data, model.window)
        session = open_session(graph)
        expected = np.stack(
            [
                session.run(None, {model.input: data[None, q - model.window : q]})[0].ravel()
                for q in range(model.window + 1, rows + 1)
            ]
        )
        errors = [float(np.abs(found - expected).max()) for found in outputs]
        assert isinstance(feed.engine, MailboxEngine)
        return {
            **result,
            **timed,
            "rows": rows,
            "max_error": max(errors),
            "host": feed.engine.host.stats(),
        }
    finally:
        feed.close()


def _entry(name: str, call: Callable[[], dict[str, Any]], **facts: Any) -> dict[str, Any]:
    try:
        entry = {"model": name, **facts, **call()}
    except (TickrtError, OSError) as error:
        entry = {"model": name, **facts, "failed": str(error)}
    print(json.dumps(entry), flush=True)
    return entry


def _entries(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One after the other: what was measured stands, whatever becomes of the next."""
    python, rows = str(options.engine_python), int(options.rows)
    for kind in KERNELS:
        for where in dict.fromkeys(("", python)):
            yield _entry(kind, partial(floor, kind, where, rows), python=where or "ours")
    with tempfile.TemporaryDirectory() as folder:
        for precision in options.precisions.split(","):
            for name in options.models.split(","):
                for split in (True, False)[: 1 + (name in WHOLE)]:
                    call = partial(measure, name, precision, split, python, rows, Path(folder))
                    yield _entry(name, call, precision=precision, split=split)


def main(argv: list[str] | None = None) -> int:
    """Measure, print a line a model, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine-python", default="")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    try:
        library = Library("tensorrt", options.engine_python)
    except TickrtError as error:
        print(f"nothing to measure here: {error}")
        return 0
    library.close()
    here = library.here
    if library.why_not or not here.gpus:
        print(f"nothing to measure here: {library.why_not or 'no GPU'}")
        return 0
    gpus = read_gpus()
    card = gpus.gpus[0].name if gpus.gpus else here.gpus[0].name
    document: dict[str, Any] = {
        "card": card,
        "tensorrt": library.version,
        "gpus": [[gpu.name, gpu.arch, gpu.driver] for gpu in here.gpus],
        "unit": "us",
        "results": [],
    }
    for entry in _entries(options):
        document["results"].append(entry)
        if options.out is None:
            write_result("tensorrt", document)
        else:
            text = json.dumps({"benchmark": "tensorrt", "machine": machine(), **document}, indent=2)
            options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
