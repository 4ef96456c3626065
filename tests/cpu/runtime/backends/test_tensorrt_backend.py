"""The `tensorrt` backend from model to answer, its library in another interpreter.

Builds for GPUs that are not here are real (TensorRT-RTX, tests/cpu/engines/build). Here a driver
and bindings stand in (`helpers.fake_tensorrt`), for what a machine without a GPU cannot have: what
becomes of a refusal, of another version, of a host that dies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import helpers
from helpers.engine_bench import Bench, await_poll, do_advance, do_submit, outputs
from helpers.engine_zoo import F, T
from helpers.tensorrt_desk import ROWS, bundle_of, saved
from tickrt import backends
from tickrt.cli import main
from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.build.build import BuildRequest, build
from tickrt.engines.build.inspect import verify, verify_on_target
from tickrt.engines.bundle.compat import load_bundle
from tickrt.engines.bundle.format import open_bundle
from tickrt.engines.bundle.machine import gpus
from tickrt.errors import (
    BuildError,
    Code,
    ConfigError,
    EngineError,
    HostError,
    IncompatibleError,
)
from tickrt.runtime.backends.tensorrt import TENSORRT
from tickrt.runtime.model_source import Source, load_source

HELPERS = Path(helpers.__file__).parent
PYTHON = sys.executable


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = HELPERS.parent / "cpu" / "host" / "cuda.c"
    command = [compiler, "-shared", "-fPIC", "-w", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(source)], check=True)
    return folder


@pytest.fixture
def elsewhere(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Hosts find the stand-ins; this process does not."""
    monkeypatch.setattr("helpers.engine_bench.T", T)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    path = [str(HELPERS / "fake_tensorrt"), *filter(None, sys.path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return monkeypatch


def bundle(name: str, folder: Path, **more: Any) -> Path:
    return bundle_of(name, folder, PYTHON, **more)


def settings(path: Path, **more: Any) -> SessionConfig:
    fields: dict[str, Any] = {"engine_python": PYTHON, "allow_unsigned": True, **more}
    return SessionConfig(data=(path,), backend="tensorrt", **fields)


def source_of(path: Path, **more: Any) -> Source:
    return load_source(StrategySettings(model=str(path)), settings(path, **more))


def as_the_model(source: Source, config: SessionConfig, onnx_path: Path) -> None:
    """Every answer of a stream is ONNX Runtime's to the window."""
    whole = onnxruntime.InferenceSession(str(onnx_path))
    bench = Bench(lambda ring: TENSORRT.load(source, ring, config), F)
    rows = np.random.default_rng(5).normal(size=(3 * T, F)).astype(np.float32)
    for seq in range(1, len(rows) + 1):
        bench.write(seq, rows[seq - 1])
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK, bench.engine.error()
            (want,) = whole.run(None, {"rows": rows[None, seq - T : seq]})
            np.testing.assert_allclose(outputs(bench.table), want[0], atol=1e-5)
        assert do_advance(bench.table, seq) == Code.OK
    assert bench.engine.describe()["backend"] == "tensorrt"
    bench.engine.close()


@pytest.mark.parametrize(
    ("name", "roles"),
    [("lstm", ["step", "advance"]), ("mlp", ["pre", "step"]), ("transformer", ["full"])],
)
def test_a_bundle_is_built_and_runs_under_another_interpreter(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path, name: str, roles: list[str]
) -> None:
    more = {"window": T, "profiles": (f"rows=1x{T}:1x{T}:1x{T}",)} if name == "transformer" else {}
    path = bundle(name, tmp_path, **more)
    with open_bundle(path, allow_unsigned=True) as opened:
        manifest = opened.manifest
    assert [engine.role for engine in manifest.engines] == roles
    assert (manifest.builder.library, manifest.builder.version) == ("tensorrt", "8.5.3.1")
    assert manifest.builder.gpu_arch == ("9.0",)
    assert (manifest.parity.status, manifest.parity.data) == ("passed", "walk")
    assert manifest.parity.max_abs is not None
    assert manifest.parity.max_abs < 1e-5
    checks = {c.what: c.result for c in verify(path, allow_unsigned=True, python=PYTHON)}
    assert checks["compatible with this machine"] == "ok"
    parity, _, _ = verify_on_target(path, ROWS, "walk", allow_unsigned=True, python=PYTHON)
    assert parity.status == "passed"
    if name != "transformer":  # its time axis is open: the loop wants a fixed window
        as_the_model(source_of(path), settings(path), tmp_path / f"{name}.onnx")


@pytest.mark.parametrize("split", [True, False])
def test_a_model_is_built_once_when_a_session_needs_it(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path, split: bool
) -> None:
    path = saved("gru", tmp_path)
    source, config = source_of(path), settings(path, split=split)
    as_the_model(source, config, path)
    plans = sorted((tmp_path / "cache/tickrt/plans").iterdir())
    assert len(plans) == (2 if split else 1)
    elsewhere.setenv("FAKE_REFUSES", "build")  # it is not built again
    as_the_model(source, config, path)
    elsewhere.setenv("FAKE_VERSION", "8.6.1")  # for that one it is
    with pytest.raises(BuildError, match=r"8\.6\.1 could not build .*ForeignNode\[lstm0\]"):
        as_the_model(source, config, path)


def test_wrong_answers_do_not_start_a_session(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved("mlp", tmp_path)
    source = source_of(path)
    as_the_model(source, settings(path), path)
    plans = sorted((tmp_path / "cache/tickrt/plans").iterdir())
    for plan in plans:  # of other weights
        model = onnx.load(plan)
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, plan)
    with pytest.raises(EngineError, match=r"answers to .* parity rows differ by up to"):
        as_the_model(source, settings(path), path)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precision_is_told_where_it_is_no_type_of_the_graph(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    with open_bundle(bundle("mlp", tmp_path, precision=precision), allow_unsigned=True) as opened:
        graphs = {
            e.role: onnx.load_from_string(opened.payload(e.payload))
            for e in opened.manifest.engines
        }
        used = {kind for e in opened.manifest.engines for kind in e.precision.values()}
    types = {t.data_type for graph in graphs.values() for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types
    assert precision in used
    assert (onnx.TensorProto.INT8 in types) == (precision == "int8")


def test_another_release_is_refused_with_both_sides(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = bundle("mlp", tmp_path)
    elsewhere.setenv("FAKE_VERSION", "10.16.1.11")
    words = r"tensorrt: built for 8\.5\.3\.1, here 10\.16\.1\.11;.*--engine-python"
    with pytest.raises(IncompatibleError, match=words):
        source_of(path)
    if not gpus():
        elsewhere.delenv("LD_LIBRARY_PATH")
        with pytest.raises(IncompatibleError, match="here no GPU"):
            source_of(path)


def test_operators_that_the_parser_lacks_are_written_out(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere.setenv("FAKE_LACKS", "LayerNormalization")
    path = bundle("transformer", tmp_path, window=T, profiles=(f"rows=1x{T}:1x{T}:1x{T}",))
    with open_bundle(path, allow_unsigned=True) as opened:
        (engine,) = opened.manifest.engines
        graph = onnx.load_from_string(opened.payload(engine.payload)).graph
        assert opened.manifest.parity.status == "passed"
    assert "LayerNormalization" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("Softmax", BuildError, r"8\.5\.3\.1 cannot read the model: layer '.+' \(.+\): Assertion"),
        ("build", BuildError, r"could not build the engine: .*ForeignNode\[lstm0\]"),
        ("kill", HostError, "was ended by signal 9"),
        ("run", HostError, r"tensorrt 8\.5\.3\.1: it refuses to run: Error Code 1"),
    ],
)
def test_a_build_that_fails(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path, what: str, error: Any, words: str
) -> None:
    elsewhere.setenv("FAKE_REFUSES", what)
    with pytest.raises(error, match=words):
        bundle("mlp", tmp_path)


def test_interpreters_that_will_not_do(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved("mlp", tmp_path)
    command = ["build", str(model), "-o", str(tmp_path / "x.bundle")]
    elsewhere.delenv("PYTHONPATH")
    for python, options, words in (
        ("/no/such/python", ["--backend", "tensorrt"], "engine_python: /no/such/python: No such"),
        (PYTHON, ["--backend", "tensorrt"], "tensorrt is not installed"),
        (PYTHON, ["--backend", "onnxruntime"], "'onnxruntime' builds in this process"),
    ):
        assert main([*command, *options, "--engine-python", python]) != 0
        assert words in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match="engine_python: /no/such/python"):
        backends.builder("tensorrt", (), "/no/such/python")


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_without_a_gpu(elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere.delenv("LD_LIBRARY_PATH")
    path = saved("mlp", tmp_path)
    with pytest.raises(ConfigError, match="tensorrt builds for the GPU of this machine, and there"):
        build(BuildRequest(path, backend="tensorrt", engine_python=PYTHON))
    with pytest.raises(ConfigError, match="no GPU here"):
        Bench(lambda ring: TENSORRT.load(source_of(path), ring, settings(path)), F)
    with pytest.raises(ConfigError, match="cannot run a model here: no CUDA driver"):
        backends.load("tensorrt", None, None, None)


def test_a_bundle_that_waits_for_another_driver(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = bundle("mlp", tmp_path)
    with load_bundle(path, allow_unsigned=True, python=PYTHON) as opened:
        assert opened.manifest.builder.driver == "13.0"
