"""A bundle of the native backend: program, source and object; other processors compile anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.sessions import T, config, market_file, settings, tiny_model, tiny_spec
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.inspect import verify, verify_on_target
from tickrt.engines.native import compiler, package
from tickrt.errors import BundleError, ConfigError, IncompatibleError
from tickrt.models.architectures.zoo import recurrent
from tickrt.runtime.session import Session

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tickrt" / "native"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = tiny_spec(tmp_path, T)
    made = recurrent("LSTM", 2, 6, T, spec.width, seed=3)
    onnx.helper.set_model_props(made, {"tickrt.feature_hash": spec.hash})
    path = tmp_path / "lstm.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def bundle_of(model: Path, **options: Any) -> Path:
    built = build(BuildRequest(model, backend="native", **options))
    assert built.manifest.parity.status == "passed"
    path = model.with_suffix(".bundle")
    write_built(built, path)
    return path


def run(folder: Path, model: Path, **changes: Any) -> tuple[Any, np.ndarray]:
    data = folder / "m.npz"
    if not data.exists():
        market_file(data, 60, clear_at=30)
    chosen = settings(folder, model=str(model))
    with Session(config(folder, data, chosen, allow_unsigned=True, **changes)) as session:
        report = session.run()
        return report.engine, session.signals()["p_up"].copy()


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compiler, package):
        monkeypatch.setattr(module, "cpu_digest", lambda: "f" * 16)


@pytest.mark.parametrize("options", [{}, {"split": False}, {"stateful": True}])
def test_it_runs_in_the_loop_as_the_model_does(
    options: dict[str, bool], tmp_path: Path, model: Path
) -> None:
    engine, signals = run(tmp_path, bundle_of(model, **options), **options)
    _, expected = run(tmp_path, model, backend="onnxruntime", **options)
    assert engine.backend == "native"
    assert (engine.split is None) == (options == {"split": False})
    assert engine.model == "lstm"
    np.testing.assert_allclose(signals, expected, rtol=1e-5, atol=1e-6)
    assert {
        check.result for check in verify(model.with_suffix(".bundle"), allow_unsigned=True)
    } <= {
        "ok",
        "not checked",
    }


def test_parity_is_verified_on_the_target(tmp_path: Path, model: Path) -> None:
    width = tiny_spec(tmp_path, T).width
    rows = np.random.default_rng(0).standard_normal((40, width)).astype(np.float32)
    parity, _, _ = verify_on_target(bundle_of(model), rows, "rows", allow_unsigned=True)
    assert parity.status == "passed"


def test_another_processor_compiles_the_source(
    tmp_path: Path, model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_of(model)
    _, expected = run(tmp_path, path)
    shutil.rmtree(own_cache)
    on_another_machine(monkeypatch)
    for _ in range(2):
        engine, signals = run(tmp_path, path)
        assert engine.backend == "native"
        np.testing.assert_array_equal(signals, expected)
        (entry,) = own_cache.iterdir()
        facts = json.loads((entry / "facts.json").read_text())
        assert facts["parity"]["windows"] == 0  # compared with its program: the model is not there
        assert facts["parity"]["errors"]["step"] <= 1e-6


def test_another_processor_without_a_compiler_refuses(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_of(model)
    on_another_machine(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = r"compiled for .*\), here .*\(ffffff\), and there is no C compiler"
    monkeypatch.setattr(package, "cpu_name", lambda: "another processor (ffffff)")
    with pytest.raises(IncompatibleError, match=words):
        run(tmp_path, path)


def test_a_machine_like_it_needs_no_compiler(
    tmp_path: Path, model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_of(model)
    _, expected = run(tmp_path, path)
    shutil.rmtree(own_cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    engine, signals = run(tmp_path, path)
    assert engine.backend == "native"
    np.testing.assert_array_equal(signals, expected)


def test_code_of_another_version_is_refused(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_of(model)
    kept = package.generate

    def newer(*arguments: Any) -> Any:
        native = kept(*arguments)
        return type(native)(native.program, native.arena, native.source + "\n", native.original)

    monkeypatch.setattr(package, "generate", newer)
    with pytest.raises(IncompatibleError, match=r"another version .*tickrt build --rebuild"):
        run(tmp_path, path)


@pytest.mark.parametrize("damage", ["head", "short", "long", "magic", "program"])
def test_a_damaged_package_is_refused_and_not_executed(model: Path, damage: str) -> None:
    payload = build(BuildRequest(model, backend="native", embed=False)).payloads["full.native"]
    end = payload.index(b"\n", 20)
    damaged = {
        "head": payload[:16] + b"?" + payload[17:],
        "short": payload[:-1],
        "long": payload + b"x",
        "magic": payload[1:],
        "program": payload[: end + 5] + b"?" + payload[end + 6 :],
    }[damage]
    with pytest.raises(BundleError, match="here: "):
        package.read(damaged, "here")
    assert package.read(payload, "here").source.startswith("/* Vectors")


def test_settings_that_it_was_not_built_for(tmp_path: Path, model: Path) -> None:
    path = bundle_of(model)
    for changes, words in (
        ({"weights": "bf16"}, "holds weights in fp32"),
        ({"stateful": True}, "built without --stateful"),
        ({"split": False}, "build it with --no-split"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(tmp_path, path, **changes)
    with pytest.raises(IncompatibleError, match="--backend native"):
        run(tmp_path, path, backend="onnxruntime")


def test_bundles_of_onnx_run_as_code_too(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, T)
    path = tiny_model(spec, tmp_path / "tiny.onnx")
    signals = []
    for options in ({}, {"split": False}):
        built = build(BuildRequest(path, backend="onnxruntime", **options))
        write_built(built, tmp_path / "onnx.bundle", None, None)
        engine, found = run(tmp_path, tmp_path / "onnx.bundle")
        assert engine.backend == "native"
        signals.append(found)
        (tmp_path / "onnx.bundle").unlink()
    np.testing.assert_allclose(signals[0], signals[1], rtol=1e-5, atol=1e-6)
