"""Building bundles: every model, every precision, both backends, parity, compatibility."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.engine_zoo import ZOO, F, H, Net, T
from tickrt.engines.build.build import SOURCE, BuildRequest, build, largest_batch, write_built
from tickrt.engines.build.parity import compare, windows_of
from tickrt.engines.build.request import choose_backend, rebuild_request
from tickrt.engines.bundle.compat import check_here, load_bundle
from tickrt.engines.bundle.format import open_bundle
from tickrt.engines.bundle.machine import Gpu, Here, gpus
from tickrt.engines.graph.ort import OrtGraph
from tickrt.engines.precision.convert import Precision
from tickrt.engines.precision.sparsity import is_two_four
from tickrt.engines.tensorrt.profiles import make_profiles
from tickrt.errors import (
    BuildError,
    ConfigError,
    FeatureMismatchError,
    IncompatibleError,
    ModelError,
    PrecisionError,
)
from tickrt.host.tensorrt.builder import EngineOptions, build_engine
from tickrt.host.tensorrt.plans import plan_validity
from tickrt.host.tensorrt.versions import find_library
from tickrt.runtime.backends import tensorrt as tensorrt_backend
from tickrt.runtime.backends.tensorrt import builder as tensorrt_builder
from tickrt.runtime.backends.tensorrt.builder import default_cache

ROWS = (np.random.default_rng(0).normal(size=(200, F)).cumsum(0) * 0.1).astype(np.float32)
TOLERANCE = {"fp32": None, "fp16": None, "bf16": None, "int8": None, "fp8": 0.2}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(ZOO[name](), path)
        return path

    return to_file


@pytest.fixture(scope="module")
def rtx() -> Any:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    return find_library("tensorrt_rtx")


def request_for(path: Path, **more: Any) -> BuildRequest:
    if path.stem == "logistic":
        more.setdefault("fp32_layers", ("softmax",))
    if path.stem == "transformer":
        more.setdefault("window", T)
        more.setdefault("profiles", (f"rows=1x4:1x{T}:8x24",))
    return BuildRequest(path, **more)


@pytest.mark.parametrize("name", sorted(ZOO))
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_onnxruntime_bundles(save: Any, name: str, precision: Precision) -> None:
    built = build(request_for(save(name), backend="onnxruntime", precision=precision), ROWS, "walk")
    manifest = built.manifest
    assert manifest.parity.status == "passed"
    assert (manifest.parity.argmax_agreement or 0) > 0.9
    assert manifest.parity.data == "walk"
    assert manifest.model.feature_hash == "ab" * 32
    assert manifest.builder.backend == "onnxruntime"
    roles = [engine.role for engine in manifest.engines]
    assert roles == ["full"] or roles[:2] == ["pre", "step"]
    assert any(precision in engine.precision.values() for engine in manifest.engines)
    assert all(engine.layers_after for engine in manifest.engines)
    assert (manifest.calibration is not None) == (precision == "int8")
    assert set(built.payloads) >= {SOURCE, *(engine.payload for engine in manifest.engines)}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_tensorrt_rtx_builds_every_model_in_every_precision(rtx: Any, save: Any, name: str) -> None:
    path = save(name)
    for precision, tolerance in TOLERANCE.items():
        request = request_for(
            path,
            backend="tensorrt",
            targets=("12.0",),
            precision=precision,
            split=False,
            tolerance=tolerance,
        )
        built = build(request, ROWS, "walk")
        (engine,) = built.manifest.engines
        assert engine.format == "tensorrt_rtx"
        assert engine.layers_before > 0
        assert precision in engine.precision.values()
        assert engine.profiles[0]["rows"][0][0] == 1
        assert len(built.payloads["full.plan"]) > 10_000
        if not gpus():
            assert built.manifest.parity.status == "not run here"
            assert "no GPU" in built.manifest.parity.reason
            assert precision == "bf16" or built.manifest.gates["graph_parity"]["rows"] > 0


def test_tensorrt_rtx_builds_the_split(rtx: Any, save: Any) -> None:
    phases = []
    request = request_for(
        save("lstm"), backend="tensorrt_rtx", targets=("8.6", "12.x"), precision="fp16"
    )
    built = build(request, ROWS, progress=lambda role, phase, done, total: phases.append(role))
    assert [e.role for e in built.manifest.engines] == ["step", "advance"]
    assert built.manifest.builder.gpu_arch == ("8.6", "12.0", "12.1")
    assert built.manifest.split is not None
    assert built.manifest.split["newest"] in {t.name for t in built.manifest.engines[0].inputs}
    assert {"step", "advance", "parity"} <= set(phases)
    assert "not always" in built.report["reproducible"]
    assert plan_validity(rtx, built.payloads["step.plan"])[0] != "suboptimal"
    assert plan_validity(rtx, b"garbage" * 100) == ("invalid", ["MALFORMED_ENGINE"])


@pytest.mark.parametrize(
    ("target", "precision", "error", "words"),
    [
        ("7.5", "fp32", BuildError, "FP32 GEMM.*--precision fp16"),
        ("8.6", "fp8", PrecisionError, r"8\.6 does not have it"),
        ("7.5", "bf16", PrecisionError, r"7\.5 does not have it"),
        ("9.0", "fp16", BuildError, "builds for 7.5, 8.0"),
    ],
)
def test_targets_that_cannot(
    rtx: Any, save: Any, target: str, precision: Precision, error: Any, words: str
) -> None:
    request = BuildRequest(
        save("mlp"), backend="tensorrt", targets=(target,), precision=precision, split=False
    )
    with pytest.raises(error, match=words):
        build(request, ROWS)


@pytest.mark.parametrize("target", ["7.5", "8.0", "8.6", "8.9", "12.1"])
def test_every_target(rtx: Any, save: Any, target: str) -> None:
    request = BuildRequest(
        save("mlp"), backend="tensorrt", targets=(target,), precision="fp16", split=False
    )
    assert build(request).manifest.builder.gpu_arch == (target,)


def test_builder_options_reach_the_library(rtx: Any, save: Any) -> None:
    model = onnx.load(save("mlp")).SerializeToString()
    shapes = ({"rows": ((1, T, F), (1, T, F), (4, T, F))}, {"rows": ((1, T, F),) * 3})
    for options in (
        EngineOptions(("12.0",), shapes, level=0),
        EngineOptions(("12.0",), shapes, version_compatible=True, workspace=1 << 30),
    ):
        assert build_engine(rtx, model, options).layers_before > 0
    if not gpus():
        with pytest.raises(BuildError, match="refittable engine is compiled on the GPU"):
            build_engine(rtx, model, EngineOptions(("12.0",), shapes, refit=True))
    unread = build_engine(rtx, b"not onnx", EngineOptions(("12.0",)))
    assert unread.data == b""
    assert unread.problems[0]["text"]
    with pytest.raises(BuildError, match="pip install"):
        find_library("tensorrt_none")


def test_equal_builds_are_equal_files(save: Any, tmp_path: Path) -> None:
    request = BuildRequest(save("lstm"), backend="onnxruntime", precision="int8")
    digests = {write_built(build(request, ROWS), tmp_path / f"{i}.bundle") for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0.bundle").read_bytes() == (tmp_path / "1.bundle").read_bytes()
    assert build(request, ROWS).manifest.builder.reproducible == "yes"


def test_the_bundle_runs_as_it_was_built(save: Any, tmp_path: Path) -> None:
    path = save("gru")
    request = BuildRequest(path, backend="onnxruntime", precision="fp16")
    write_built(build(request, ROWS), tmp_path / "x.bundle")
    with load_bundle(tmp_path / "x.bundle", allow_unsigned=True) as bundle:
        facts = bundle.manifest.split
        assert facts is not None
        pre, step = (OrtGraph(bundle.payload(f"{role}.onnx")) for role in ("pre", "step"))
        window = windows_of(ROWS, T, 1)
        states = pre.run({facts["known"]: window[:, :-1]})
        got = step.run({facts["newest"]: window[:, -1:], **states})
        want = OrtGraph(onnx.load(path)).run({"rows": window})
        assert np.abs(got["probabilities"] - want["probabilities"]).max() < 5e-3
        assert bundle.payload(SOURCE) == path.read_bytes()
        sizes = [int(np.prod(entry["shape"])) for entry in facts["bank"]]
        assert len(bundle.payload("bank.f32")) == 4 * sum(sizes)


def test_stored_scales_rebuild_without_rows(save: Any) -> None:
    request = BuildRequest(save("gru"), backend="onnxruntime", precision="int8")
    first = build(request, ROWS)
    again = build(rebuild_request(first.manifest, request.model))
    assert again.manifest.calibration == first.manifest.calibration
    assert again.manifest.parity.data == "random normal rows"
    for name, data in first.payloads.items():
        assert again.payloads[name] == data, name
    with pytest.raises(PrecisionError, match=r"no stored scale.*--calibrate"):
        build(replace(rebuild_request(first.manifest, save("lstm")), fp32_layers=("softmax",)))


def test_a_build_that_is_not_exact_fails(save: Any) -> None:
    request = BuildRequest(save("tcn"), backend="onnxruntime", precision="int8", tolerance=1e-6)
    with pytest.raises(BuildError, match=r"parity failed.*argmax agrees.*--allow-failed-parity"):
        build(request, ROWS)
    allowed = build(replace(request, allow_failed_parity=True), ROWS)
    assert allowed.manifest.parity.status == "failed"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "bf16"}, PrecisionError, "onnxruntime backend cannot compute in it"),
        ({"fp32_layers": ("lstm7",), "precision": "fp16"}, PrecisionError, "fits no layer"),
        (
            {"backend": "tpu"},
            ConfigError,
            "unknown backend .tpu.: there are native, null, onnxruntime",
        ),
        ({"targets": ("8.9",)}, ConfigError, "--target is for TensorRT"),
        ({"sparse": True}, BuildError, "not 2:4 along the summed axis: lstm0/"),
    ],
)
def test_requests_that_are_refused(save: Any, options: Any, error: Any, words: str) -> None:
    more = {"backend": "onnxruntime", "split": False, **options}
    if "sparse" in options:
        more |= {"precision": "int8"}
    with pytest.raises(error, match=words):
        build(BuildRequest(save("lstm"), **more), ROWS)
    with pytest.raises(PrecisionError, match="--calibrate"):
        build(BuildRequest(save("mlp"), backend="onnxruntime", precision="int8"))


def test_what_is_not_onnx(tmp_path: Path) -> None:
    for name, words in (("a.uff", "UFF.*ONNX"), ("a.caffemodel", "Caffe.*ONNX")):
        with pytest.raises(ModelError, match=words):
            build(BuildRequest(tmp_path / name))
    (tmp_path / "a.onnx").write_bytes(b"\x08\x09garbage")
    with pytest.raises(ModelError, match=r"a\.onnx: not"):
        build(BuildRequest(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match="No such file"):
        build(BuildRequest(tmp_path / "none.onnx"))


def test_sparse_weights_are_checked(tmp_path: Path) -> None:
    net = Net("pruned")
    weights = np.random.default_rng(0).normal(size=(F, H)).astype(np.float32)
    weights.reshape(F // 4, 4, H)[:, 2:] = 0
    assert is_two_four(weights)
    x = net.op("Relu", net.op("MatMul", net.last("rows"), net.const(weights), name="first"))
    onnx.save(net.model(net.head(x, H)), tmp_path / "pruned.onnx")
    request = BuildRequest(
        tmp_path / "pruned.onnx", backend="onnxruntime", precision="fp16", sparse=True, split=False
    )
    assert build(request).manifest.builder.options["sparse"] is True
    with pytest.raises(BuildError, match="head"):
        build(replace(request, fp32_layers=("softmax",)))


def test_auto_backend_follows_the_machine(monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    request = BuildRequest(save("mlp"))

    here: list[Gpu] = []

    class Library:
        def __init__(self, name: str, python: str) -> None:
            self.name, self.version, self.why_not = name, "1", ""
            self.here = Here(tuple(here), {name: "1"}, "linux-x86_64")

    def chosen(request: BuildRequest) -> str:
        return choose_backend(request).library

    monkeypatch.setattr(tensorrt_backend, "gpus", lambda: here)
    monkeypatch.setattr(tensorrt_backend, "_installed", lambda name: True)
    monkeypatch.setattr(tensorrt_builder, "Library", Library)
    assert chosen(request) == "onnxruntime"
    with pytest.raises(ConfigError, match="--target"):
        choose_backend(replace(request, backend="tensorrt_rtx")).targets()
    assert chosen(replace(request, targets=("8.6",))) == "tensorrt_rtx"
    assert chosen(replace(request, backend="tensorrt")) == "tensorrt_rtx"
    here.append(Gpu(0, "G", "8.9", "13.0"))
    assert chosen(request) == "tensorrt"
    assert choose_backend(request).targets() == ("8.9",)
    assert chosen(replace(request, targets=("8.6",))) == "tensorrt_rtx"
    assert chosen(replace(request, backend="tensorrt")) == "tensorrt"
    assert chosen(replace(request, backend="tensorrt_rtx")) == "tensorrt_rtx"


def test_auto_says_why_nothing_can_build(monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    monkeypatch.setattr(tensorrt_backend, "_installed", lambda name: False)
    words = (
        "tensorrt: it builds for the GPU.*tensorrt_rtx is not installed.*onnxruntime: it runs on"
    )
    with pytest.raises(BuildError, match=words):
        choose_backend(BuildRequest(save("mlp"), targets=("8.6",)))


def test_loading_elsewhere_is_refused_with_both_sides(save: Any, tmp_path: Path) -> None:
    built = build(BuildRequest(save("mlp"), backend="onnxruntime"), ROWS)
    there = built.manifest.builder.model_copy(
        update={
            "backend": "tensorrt",
            "library": "tensorrt",
            "version": "10.16.1.11",
            "gpu_arch": ("8.9",),
            "driver": "12.8",
        }
    )
    manifest = built.manifest.model_copy(update={"builder": there})
    good = Here((Gpu(0, "L4", "8.9", "12.8"),), {"tensorrt": "10.16.1.11"}, there.platform)
    check_here(manifest, "x.bundle", good)
    command = "tickrt build --rebuild x.bundle -o x.bundle"
    for here, words in (
        (replace(good, libraries={"tensorrt": "11.4.0.106"}), "10.16.1.11, here 11.4.0.106"),
        (replace(good, libraries={}), "tensorrt 10.16.1.11, here not installed"),
        (replace(good, gpus=(Gpu(0, "A10", "8.6", "12.8"),)), r"built for 8.9, here 8.6 \(A10\)"),
        (replace(good, gpus=(Gpu(0, "L4", "8.9", "13.0"),)), "driver: built for 12.8, here 13.0"),
        (replace(good, gpus=()), "here no GPU.*--backend onnxruntime"),
        (replace(good, platform="windows-amd64"), "here windows-amd64"),
    ):
        with pytest.raises(IncompatibleError, match=words) as caught:
            check_here(manifest, "x.bundle", here)
        assert command in str(caught.value)
    loose = there.model_copy(update={"options": {"version_compatible": True}})
    newer = replace(good, libraries={"tensorrt": "10.99.0.0"})
    check_here(manifest.model_copy(update={"builder": loose}), "x.bundle", newer)
    path = tmp_path / "x.bundle"
    write_built(built, path)
    with load_bundle(path, allow_unsigned=True, feature_hash="ab" * 32):
        pass
    with pytest.raises(FeatureMismatchError, match=r"abab.*cdcd"):
        load_bundle(path, allow_unsigned=True, feature_hash="cd" * 32)


def test_encrypted_builds_say_that_they_differ(save: Any, tmp_path: Path) -> None:
    from tickrt.engines.bundle.crypto import load_aes_key, new_keys

    key = load_aes_key(str(new_keys(tmp_path / "k")["aes"]))
    built = build(BuildRequest(save("mlp"), backend="onnxruntime"), ROWS)
    digests = {write_built(built, tmp_path / f"{i}.bundle", encrypt=key) for i in range(2)}
    assert len(digests) == 2
    with open_bundle(tmp_path / "0.bundle", key=key, allow_unsigned=True) as bundle:
        assert bundle.manifest.builder.reproducible.startswith("no")
        assert bundle.payload("step.onnx") == built.payloads["step.onnx"]


def test_parity_figures() -> None:
    want = {"p": np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32)}
    got = {"p": np.array([[0.6, 0.3, 0.1], [0.45, 0.35, 0.2]], np.float32)}
    figures = compare(want, got, 0.5, "x")
    assert figures.status == "passed"
    assert figures.max_abs == pytest.approx(0.45, rel=1e-3)
    assert figures.argmax_agreement == 0.5
    kl = [float((w * np.log(w / g)).sum()) for w, g in zip(want["p"], got["p"], strict=True)]
    assert figures.kl_max == pytest.approx(max(kl), rel=1e-3)
    assert figures.kl_mean == pytest.approx(sum(kl) / 2, rel=1e-3)
    bad = compare(want, {"p": np.full((2, 3), np.nan, np.float32)}, 0.5, "x")
    assert (bad.status, bad.reason) == ("failed", "outputs are not finite:")
    logits = compare({"p": want["p"] * 9}, {"p": want["p"] * 9}, 0.5, "x")
    assert logits.kl_max is None


def test_profiles() -> None:
    from tickrt.engines.graph.interface import TensorInfo

    rows = TensorInfo(name="rows", dtype="float32", shape=("batch", "time", 8))
    state = TensorInfo(name="h", dtype="float32", shape=(1, "batch", 16))
    made = make_profiles([rows, state], ["rows=1x10:2x20:4x40", "rows=1x5x8:1x5x8:1x5x8"])
    assert made[0]["h"] == ((1, 1, 16), (1, 2, 16), (1, 4, 16))
    assert made[1]["rows"] == ((1, 5, 8),) * 3
    batch = rows.model_copy(update={"shape": ("batch", 20, 8)})
    assert make_profiles([batch])[0]["rows"] == ((1, 20, 8),) * 3
    fixed = rows.model_copy(update={"shape": (1, 20, 8)})
    assert make_profiles([fixed]) == ()
    for text, words in (
        ("rows=1:2", "expected input=min:opt:max"),
        ("x=1:1:1", "no input 'x'"),
        ("rows=1:1:1", "dynamic axes of rows are: batch, time"),
        ("rows=4x1:2x1:8x1", "min ≤ opt ≤ max"),
        ("rows=1x5x9:1x5x9:1x5x9", "axis 2 is 8"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_profiles([rows], [text])
    with pytest.raises(ConfigError, match="axis 'time' is dynamic"):
        make_profiles([rows])


def test_parity_stays_within_the_profiles() -> None:
    from tickrt.engines.bundle.manifest import EngineInfo
    from tickrt.engines.graph.interface import TensorInfo

    rows = TensorInfo(name="rows", dtype="float32", shape=("batch", T, F))
    info = EngineInfo(role="full", payload="p", format="onnx", inputs=(rows,), outputs=())
    assert largest_batch([info]) == 256
    small = info.model_copy(update={"profiles": make_profiles([rows], ["rows=1:1:8"])})
    assert largest_batch([info, small]) == 8


def test_the_timing_cache_is_keyed_by_gpu_and_version() -> None:
    a, b = (default_cache("tensorrt", v, "8.9") for v in ("10.1", "10.2"))
    assert a != b
    assert "sm8.9" in a.name
