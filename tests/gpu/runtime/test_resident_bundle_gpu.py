"""Bundles of resident kernels on a real GPU: both kernels, compared at load, without a compiler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.resident_serving import skip_without_gpu
from helpers.sessions import T, config, market_file, settings, tiny_spec
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.bundle.format import open_bundle, write_bundle
from tickrt.errors import EngineError, IncompatibleError
from tickrt.host.kernels.resident import _unpack, pack
from tickrt.host.memory import registry
from tickrt.models.architectures.zoo import recurrent
from tickrt.runtime.backends.resident_bundle import GPU_ROWS, HOST_ROWS, PARITY
from tickrt.runtime.session import Session

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True, scope="module")
def gpu() -> None:
    skip_without_gpu()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its bundle and a market."""
    folder = tmp_path_factory.mktemp("desk")
    spec = tiny_spec(folder, T)
    made = recurrent("LSTM", 2, 6, T, spec.width, seed=3)
    onnx.helper.set_model_props(made, {"tickrt.feature_hash": spec.hash})
    (folder / "lstm.onnx").write_bytes(made.SerializeToString())
    request = BuildRequest(folder / "lstm.onnx", backend="resident")
    write_built(build(request), folder / "lstm.bundle")
    market_file(folder / "m.npz", 60, clear_at=30)
    return folder


def run(desk: Path, model: str, backend: str) -> tuple[dict[str, Any], np.ndarray]:
    chosen = settings(desk, model=str(desk / model))
    given = {"backend": backend, "deadline_us": 1e6, "allow_unsigned": True}
    with Session(config(desk, desk / "m.npz", chosen, **given)) as session:
        session.run()
        (engine,) = session.assembly.engines
        return engine.describe(), session.signals()["p_up"].copy()


def with_payloads(desk: Path, name: str, **payloads: bytes) -> str:
    with open_bundle(desk / "lstm.bundle", allow_unsigned=True) as bundle:
        content = {entry.name: bundle.payload(entry.name) for entry in bundle.entries}
        write_bundle(desk / name, bundle.manifest, {**content, **payloads})
    return name


@pytest.mark.parametrize("memory", registry.kinds())
def test_a_bundle_runs_without_nvcc(
    memory: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := registry._find(memory).probe():
        pytest.skip(f"{memory}: {why}")
    monkeypatch.setattr(registry, "choose", lambda kind=memory: memory)
    _, expected = run(desk, "lstm.onnx", "onnxruntime")
    monkeypatch.setenv("PATH", str(tmp_path))
    facts, signals = run(desk, "lstm.bundle", "resident")
    np.testing.assert_allclose(signals, expected, rtol=1e-5, atol=1e-5)
    assert facts["row_memory"] == memory
    assert facts["parity_max_abs"] < 1e-5


def test_a_kernel_that_answers_otherwise_is_refused(desk: Path) -> None:
    """A kernel with other weights: its answers to the parity rows are not the program's."""
    changed = {}
    with open_bundle(desk / "lstm.bundle", allow_unsigned=True) as bundle:
        for name in (GPU_ROWS, HOST_ROWS):
            facts, arrays, cubin = _unpack(memoryview(bundle.payload(name)))
            facts = {k: v for k, v in facts.items() if k not in ("sizes", "cubin")}
            starts, constants, weights = arrays
            values = {"starts": starts, "constants": constants, "weights": weights * 1.5}
            changed[name] = pack(facts, values, cubin)
    with pytest.raises(EngineError, match="parity rows differ by up to"):
        run(desk, with_payloads(desk, "other.bundle", **changed), "resident")
    with open_bundle(desk / "lstm.bundle", allow_unsigned=True) as bundle:
        data = bytearray(bundle.payload(PARITY))
    data[-1] ^= 2  # the last answer's exponent
    with pytest.raises(EngineError, match="parity rows differ by up to"):
        run(desk, with_payloads(desk, "rows.bundle", **{PARITY: bytes(data)}), "resident")


def test_a_bundle_for_another_gpu_is_refused_by_the_host(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tickrt.runtime.backends import resident_bundle

    def for_another(*arguments: Any, **named: Any) -> Any:
        return replace(made(*arguments, **named), architecture="sm_100a")

    made = resident_bundle.build
    monkeypatch.setattr(resident_bundle, "build", for_another)
    write_built(build(BuildRequest(desk / "lstm.onnx", backend="resident")), desk / "b.bundle")
    with pytest.raises(IncompatibleError, match=r"compiled for sm_100a, this GPU \(.*\) is sm_90"):
        run(desk, "b.bundle", "resident")
