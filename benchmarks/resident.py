"""Resident kernels on a GPU: from the store of a row to its answer in the loop's memory.

Each model of the zoo runs in an engine host of its own, split, with window semantics; the loop's
compiled functions submit row after row and spin on the answer. Beside them the echo: a kernel that
only sends three numbers of the row back, the floor of the machine; and, while each host serves,
what the loop's core does to a thread that only spins there (``core_…``). Every answer is compared
with ONNX Runtime on the whole window.

    python -m benchmarks.resident [--models lstm-s,…] [--memory vulkan,memfd] [--rows N] [--out F]

The result goes to ``results/resident.json``. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._hot import core_floor, core_gaps, hot_core, on_core
from benchmarks._machine import machine, write_result
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.graph.ort import open_session
from tickrt.engines.resident.compile import build, compiler
from tickrt.engines.resident.echo import echo
from tickrt.engines.split.plan import plan
from tickrt.engines.translate import TranslateError, stream_program
from tickrt.errors import TickrtError
from tickrt.host.memory import registry
from tickrt.host.process import HostProcess
from tickrt.models.architectures.zoo import ZOO, make
from tickrt.observe.nvml import read_gpus
from tickrt.program import StreamProgram
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.engine_bench import Feed, percentiles
from tickrt.runtime.engine_lineup import kernel_feed

MODELS = [name for name in ZOO if name != "lstm-l"]
GAPS_US = (50.0, 20.0)
_JITTER_S = 2.0
_WARM_RUNS = 2


def _kernel(
    program: StreamProgram, model: LoopModel, memory: str, blocks: int | None, profile: bool
) -> tuple[Feed, int]:
    """One kernel in a host, and its blocks."""
    one_poller = memory == registry.ORDINARY
    built = build(program, blocks=blocks, one_poller=one_poller, profile=profile)
    return kernel_feed(model, program, built, memory, core=hot_core()), built.kernel.blocks


def measure(
    name: str, memory: str, rows: int, blocks: int | None = None, profile: bool = False
) -> dict[str, Any]:
    """Latency and error of one model, or of ``echo-F``.

    Raises:
        TickrtError: it cannot run; says why.
    """
    if name.startswith("echo-"):
        width = int(name.split("-")[1])
        program = echo(width)
        model = LoopModel(name, b"", "", "rows", "echo", program.window, width, 3, {})
        session = None
    else:
        model = loop_model(make(name).SerializeToString(), name)
        split = plan(model)
        program = stream_program(model, split if split.usable else None)
        session = open_session(make(name))
    data = np.random.default_rng(0).standard_normal((rows, model.width)).astype(np.float32)
    bench, used = _kernel(program, model, memory, blocks, profile)
    core = hot_core()
    try:
        result: dict[str, Any] = {"blocks": used, "memory": memory, "rows": rows}
        for _ in range(_WARM_RUNS):  # the card's clocks rise when it has work
            on_core(core, lambda: bench.run(data, GAPS_US[0]))
        for gap in GAPS_US:
            first = "max_error" not in result
            fed = on_core(core, partial(bench.run, data, gap))
            skip = model.window  # the first ones of a run: caches, and windows of two runs
            result[f"gap_{gap:g}_us"] = percentiles(fed.answers[skip:])
            floor = on_core(core, partial(core_floor, gap, rows))
            result[f"core_gap_{gap:g}_us"] = floor
            if session is None:
                continue
            if first:
                expected = np.full_like(fed.outputs, np.nan)
                for q in range(model.window, rows + 1):
                    window = data[None, q - model.window : q]
                    expected[q - 1] = session.run(None, {model.input: window})[0].ravel()
            error = np.abs(fed.outputs[skip:] - expected[skip:]).max()
            result["max_error"] = max(float(error), result.get("max_error", 0.0))
        if profile:
            assert isinstance(bench.engine, MailboxEngine)
            result["cycles"] = bench.engine.host.stats()["cycles"]
        return result
    finally:
        bench.close()


def main(argv: list[str] | None = None) -> int:
    """Measure, print a line a model, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--memory", default=f"{registry.GPU},{registry.ORDINARY}")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--profile", action="store_true", help="cycles of the last row's parts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    try:
        with HostProcess() as host:
            host.warm("resident")
    except TickrtError as error:
        print(f"nothing to measure here: {error}")
        return 0
    gpus = read_gpus()
    card = gpus.gpus[0].name if gpus.gpus else f"unknown: {gpus.problem}"
    if not compiler()[0]:
        print("nothing to measure here: no nvcc")
        return 0
    core = on_core(hot_core(), partial(core_gaps, _JITTER_S))  # without any host
    print("core", json.dumps(core), flush=True)
    names = options.models.split(",")
    results: list[dict[str, Any]] = []
    for memory in options.memory.split(","):
        for name in ["echo-128", "echo-402", *names]:
            try:
                entry = measure(name, memory, options.rows, options.blocks, options.profile)
            except (TickrtError, TranslateError) as error:
                entry = {"memory": memory, "skipped": str(error)}
            results.append({"model": name, **entry})
            print(name, json.dumps(entry), flush=True)
    document = {"card": card, "unit": "us", "core": core, "results": results}
    if options.out is None:
        write_result("resident", document)
    else:
        text = json.dumps({"benchmark": "resident", "machine": machine(), **document}, indent=2)
        options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
