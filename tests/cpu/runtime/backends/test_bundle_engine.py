"""A bundle's engines in the loop's handle: the same signals as the model that it was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.engine_bench import Bench, do_advance, do_poll, do_submit, outputs
from helpers.engine_zoo import ZOO, F, T
from helpers.sessions import market_file, tiny_model, tiny_spec
from tickrt import backends
from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.runnable import runnable
from tickrt.engines.bundle.compat import load_bundle
from tickrt.engines.bundle.crypto import load_aes_key, load_private_key, new_keys
from tickrt.engines.bundle.format import open_bundle, write_bundle
from tickrt.errors import BundleError, Code, IncompatibleError, TamperedError
from tickrt.runtime.backends.onnxruntime.split import SplitEngine
from tickrt.runtime.backends.onnxruntime.whole import OrtEngine
from tickrt.runtime.model_source import Source
from tickrt.runtime.session import Session
from tickrt.strategy.params import TakerParams


def bundle_of(name: str, folder: Path, **more: Any) -> Path:
    onnx.save(ZOO[name](), folder / f"{name}.onnx")
    request = BuildRequest(folder / f"{name}.onnx", backend="onnxruntime", embed=False, **more)
    write_built(build(request), folder / "x.bundle")
    return folder / "x.bundle"


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's ring holds as many rows as the models' windows."""
    monkeypatch.setattr("helpers.engine_bench.T", T)


@pytest.mark.parametrize(
    ("name", "more", "mode", "tolerance"),
    [
        ("lstm", {}, "bank", 1e-5),
        ("gru", {"precision": "fp16"}, "bank", 5e-3),
        ("mlp", {}, "pre", 1e-5),
        ("tcn", {"precision": "fp16"}, "pre", 5e-3),
        ("mixture", {"split": False}, None, 1e-5),
    ],
)
def test_the_loop_runs_it(
    tmp_path: Path, name: str, more: dict[str, Any], mode: str | None, tolerance: float
) -> None:
    with load_bundle(bundle_of(name, tmp_path, **more), allow_unsigned=True) as bundle:
        model, plan = runnable(bundle)
    assert (model.window, model.width, model.n_outputs) == (T, F, 3)
    assert model.metadata["tickrt.feature_hash"] == "ab" * 32
    if plan is None:
        assert mode is None
        bench = Bench(lambda ring: OrtEngine(model, ring), F)
    else:
        assert plan.mode == mode
        bench = Bench(lambda ring: SplitEngine(model, plan, ring), F)
        assert bench.engine.describe()["split"] == mode
    whole = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"))
    rows = np.random.default_rng(5).normal(size=(40, F)).astype(np.float32)
    for seq in range(1, 41):
        bench.write(seq, rows[seq - 1])
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert do_poll(bench.table, seq) == Code.OK
            (want,) = whole.run(None, {"rows": rows[None, seq - T : seq]})
            np.testing.assert_allclose(outputs(bench.table), want[0], atol=tolerance)
        assert do_advance(bench.table, seq) == Code.OK
    bench.engine.close()


def test_an_encrypted_bundle_needs_its_key(tmp_path: Path) -> None:
    paths = new_keys(tmp_path / "k")
    aes, sign = load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))
    onnx.save(ZOO["lstm"](), tmp_path / "m.onnx")
    built = build(BuildRequest(tmp_path / "m.onnx", backend="onnxruntime"))
    write_built(built, tmp_path / "x.bundle", aes, sign)
    with load_bundle(tmp_path / "x.bundle", [sign.public], aes) as bundle:
        assert runnable(bundle)[1] is not None
    other = load_aes_key(str(new_keys(tmp_path / "k2")["aes"]))
    with (
        load_bundle(tmp_path / "x.bundle", [sign.public], other) as bundle,
        pytest.raises(TamperedError, match="wrong key"),
    ):
        runnable(bundle)


@pytest.mark.parametrize("split", [True, False])
def test_plans_are_not_for_this_backend(split: bool, tmp_path: Path) -> None:
    path = bundle_of("mlp", tmp_path, split=split)
    with open_bundle(path, allow_unsigned=True) as bundle:
        plans = tuple(
            engine.model_copy(update={"format": "tensorrt_rtx"})
            for engine in bundle.manifest.engines
        )
        manifest = bundle.manifest.model_copy(update={"engines": plans})
        payloads = {entry.name: bundle.payload(entry.name) for entry in bundle.entries}
    write_bundle(path, manifest, payloads)
    with open_bundle(path, allow_unsigned=True) as bundle:
        model, plan = runnable(bundle)
    assert model.format == "tensorrt_rtx"
    assert (model.window, model.width, model.input, model.output) == (T, F, "rows", "probabilities")
    source = Source(model, path, bundle.digest, built=True, plan=plan)
    words = "--backend tensorrt_rtx, .*--rebuild .*x.bundle .*--backend onnxruntime"
    with pytest.raises(IncompatibleError, match=words):
        backends.load("onnxruntime", source, None, SessionConfig(data=(path,)))


def test_engines_of_several_formats_are_no_model(tmp_path: Path) -> None:
    path = bundle_of("mlp", tmp_path)
    with open_bundle(path, allow_unsigned=True) as bundle:
        first, *others = bundle.manifest.engines
        mixed = (first.model_copy(update={"format": "tensorrt"}), *others)
        manifest = bundle.manifest.model_copy(update={"engines": mixed})
        payloads = {entry.name: bundle.payload(entry.name) for entry in bundle.entries}
    write_bundle(path, manifest, payloads)
    with (
        open_bundle(path, allow_unsigned=True) as bundle,
        pytest.raises(BundleError, match="2 formats: onnx, tensorrt"),
    ):
        runnable(bundle)


def test_a_session_runs_a_signed_bundle_like_its_model(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, 4)
    path = tiny_model(spec, tmp_path / "m.onnx")
    paths = new_keys(tmp_path / "k")
    built = build(BuildRequest(path, backend="onnxruntime", embed=False))
    aes, sign = load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))
    write_built(built, tmp_path / "m.bundle", aes, sign)
    data = market_file(tmp_path / "d.npz", 200)
    runs = []
    for model in (path, tmp_path / "m.bundle"):
        settings = StrategySettings(
            model=str(model),
            spec=str(spec.path),
            policy=TakerParams(enter_threshold=0.05, exit_threshold=0.0),
        )
        config = SessionConfig(
            data=(data,),
            strategies=(settings,),
            trust=(str(paths["public"]),),
            bundle_key=str(paths["aes"]),
        )
        with Session(config) as session:
            report = session.run()
            intents = session.intents()
            intents["signal"] = 0.0
            runs.append(intents.tobytes())
            assert report.orders > 0
            assert report.engine.split == "pre"
    assert runs[0] == runs[1]
    unsigned = config.model_copy(update={"trust": ()})
    with pytest.raises(BundleError):
        Session(unsigned)
