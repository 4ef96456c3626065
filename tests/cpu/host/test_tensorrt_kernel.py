"""The host's TensorRT kernel on a driver and bindings that stand in: what is refused, and when.

The stand-ins run the plans (with ONNX Runtime) on the very addresses that the kernel bound, so that
a buffer that is not where it should be gives a wrong answer here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CODE = """
import ctypes, json, sys
from pathlib import Path
import numpy as np
from helpers.engine_zoo import ZOO
from tickrt.engines.graph.check import loop_model
from tickrt.engines.split.plan import plan
from tickrt.host.kernels.stream import KernelFailed
from tickrt.host.kernels.tensorrt import TENSORRT
from tickrt.runtime.backends.mailbox.stream import (
    graphs_of, parity_rows, stream_facts, stream_parcel)
from tickrt.runtime.model_source import Source
name, mode = sys.argv[1:]
model = loop_model(ZOO[name]().SerializeToString(), name)
split = None if mode == "whole" else plan(model, stateful=mode == "carry")
facts = stream_facts(model, split)
graphs = graphs_of(model, split, facts)
parcel = stream_parcel(Source(model, Path(name), ""), split, facts, "tensorrt", graphs)
held = ctypes.CDLL("libcuda.so.1").stub_held
before, said, worst, stats = [held(i) for i in (0, 1, 4, 5)], "", -1.0, {}
try:
    kernel = TENSORRT.load({n: memoryview(d) for n, d in parcel.payloads.items()}, parcel.facts)
    stats, worst = kernel.stats(), 0.0
    rows, expected = parity_rows(model)
    out = np.zeros((1, model.n_outputs), np.float32)
    for again in range(2):
        kernel.reset()
        for i, row in enumerate(rows):
            if not np.isnan(expected[i]).all():
                out[:] = -1
                kernel.answer(i + 1, row[None], out)
                if facts.mode != "carry" or i == model.window - 1:
                    worst = max(worst, float(np.abs(out[0] - expected[i]).max()))
            kernel.advance(i + 1, row[None])
    kernel.close()
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([facts.mode, worst, said, stats, before, [held(i) for i in (0, 1, 4, 5)]]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-w", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(Path(__file__).with_name("cuda.c"))], check=True)
    return folder


def run(driver: Path, name: str, mode: str = "", **variables: str) -> Any:
    path = [str(ROOT / "tests/helpers/fake_tensorrt"), str(ROOT / "tests"), *sys.path]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    command = [sys.executable, "-c", CODE, name, mode]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "mode", "graphs"),
    [
        ("lstm", "whole", {"full_0"}),
        ("mlp", "pre", {"step_0", "pre_0"}),
        ("tcn", "pre", {"step_0", "pre_0"}),
        ("gru", "bank", {"step_0", "advance_0", "advance_1"}),
        ("lstm", "bank", {"step_0", "advance_0", "advance_1"}),
        ("lstm", "carry", {f"{role}_{i}" for role in ("step", "pre", "advance") for i in (0, 1)}),
    ],
)
def test_every_buffer_is_where_the_graphs_look(
    driver: Path, name: str, mode: str, graphs: set[str]
) -> None:
    ran, worst, said, stats, before, after = run(driver, name, mode)
    assert (ran, said) == (mode, "")
    assert 0 <= worst < 1e-5
    assert set(stats["graph_nodes"]) == graphs
    assert stats["completion"] == "stamp"
    assert after == before  # everything was given back


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("plan", "IncompatibleError: tensorrt 8.5.3.1: it refuses the plan: Version tag does not"),
        ("context", "HostError: tensorrt 8.5.3.1: no execution context"),
        ("shape", "HostError: tensorrt 8.5.3.1: input 'rows_newest' of shape (1, 1, "),
        ("address", "HostError: tensorrt 8.5.3.1: the address of 'rows_newest'"),
        ("run", "HostError: tensorrt 8.5.3.1: it refuses to run: Error Code 1: Cuda Runtime"),
        ("recording", "HostError: tensorrt 8.5.3.1: it refuses to run: Error Code 1: Cuda"),
    ],
)
def test_what_is_refused_at_load_leaves_no_graph_behind(
    driver: Path, what: str, words: str
) -> None:
    _, _, said, stats, before, after = run(driver, "mlp", FAKE_REFUSES=what)
    assert said.startswith(words)
    assert stats == {}
    assert after == before


@pytest.mark.parametrize(
    "call",
    [
        *("cuMemHostAlloc", "cuMemHostGetDevicePointer_v2", "cuMemAlloc_v2", "cuMemsetD32_v2"),
        *("cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"),
        *("cuGraphGetNodes", "cuGraphUpload", "cuGraphLaunch", "cuMemcpyHtoD_v2"),
        *("cuMemcpyDtoDAsync_v2", "cuLaunchKernel", "cuCtxSynchronize"),
    ],
)
def test_a_call_that_fails_at_load_is_named_and_leaves_nothing(driver: Path, call: str) -> None:
    _, _, said, stats, before, after = run(driver, "gru", STUB_FAIL=call)
    assert said == f"CudaError: {call}: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"
    assert stats == {}
    assert after == before


def test_outputs_without_the_stamp_of_their_launch_are_no_answer(driver: Path) -> None:
    said = run(driver, "mlp", STUB_NO_STAMP="1")[2]
    assert said == "HostError: launch 1 ended with the stamp 0"


def test_a_driver_without_its_compiler_says_by_the_stream_when_it_is_done(driver: Path) -> None:
    _, worst, said, stats, before, after = run(driver, "lstm", STUB_FAIL="cuModuleLoadData")
    assert said == ""
    assert worst < 1e-5
    assert stats["completion"] == "stream"
    assert after == before
