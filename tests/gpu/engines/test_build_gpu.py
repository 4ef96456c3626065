"""Engines on a GPU: every model built for this machine's GPU, run, and compared with the original.

Skips only where the machine has no GPU, or one that the installed TensorRT does not build for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.engine_zoo import ZOO, F, T
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.inspect import verify
from tickrt.engines.bundle.machine import gpus
from tickrt.errors import BuildError, HostError
from tickrt.host.cuda import open_device
from tickrt.host.tensorrt.builder import RTX_TARGETS
from tickrt.host.tensorrt.plans import plan_validity
from tickrt.host.tensorrt.versions import LIBRARIES, find_library

pytestmark = pytest.mark.gpu
ROWS = (np.random.default_rng(0).normal(size=(120, F)).cumsum(0) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def device() -> None:
    try:
        open_device()
    except HostError as error:
        if "no CUDA driver" not in str(error) and "NO_DEVICE" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def library(device: None) -> Any:
    why = []
    for name in LIBRARIES:
        try:
            found = find_library(name)
        except BuildError as error:
            why.append(str(error))
            continue
        if found.is_rtx and gpus()[0].arch not in RTX_TARGETS:
            pytest.skip(f"TensorRT-RTX does not build for GPU {gpus()[0].arch}")
        return found
    pytest.skip("; ".join(why))


def test_memory_goes_there_and_back(device: None) -> None:
    data = np.arange(1000, dtype=np.float32)
    back = np.zeros_like(data)
    gpu = open_device()
    address = gpu.upload(data)
    gpu.download(back, address)
    gpu.free(address)
    np.testing.assert_array_equal(back, data)
    assert float(gpus()[0].arch) > 5


@pytest.mark.parametrize("name", sorted(ZOO))
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_run_as_the_original(
    library: Any, tmp_path: Path, name: str, precision: Any
) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(ZOO[name](), path)
    more: dict[str, Any] = {}
    if name == "transformer":
        more = {"window": T, "profiles": (f"rows=1x4:1x{T}:8x24",)}
    if name == "logistic":
        more = {"fp32_layers": ("softmax",)}
    request = BuildRequest(path, backend=library.name, precision=precision, **more)
    built = build(request, ROWS, "walk")
    assert built.manifest.parity.status == "passed"
    assert all(engine.layers_after for engine in built.manifest.engines)
    write_built(built, tmp_path / "x.bundle")
    checks = {check.what: check.result for check in verify(tmp_path / "x.bundle")}
    assert checks["compatible with this machine"] == "ok"
    if library.is_rtx:
        for engine in built.manifest.engines:
            assert plan_validity(library, built.payloads[engine.payload])[0] == "valid"
