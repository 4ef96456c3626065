"""Bundles of resident kernels: built without a GPU, verified on both sides, compared when loaded.

The GPU is not here: a stand-in in the host runs the bundle's program (`helpers.resident_stand_in`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers import resident_stand_in
from helpers.sessions import T, config, market_file, settings, tiny_spec
from tickrt.backends import builder, probe
from tickrt.cli import main
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.inspect import verify, verify_on_target
from tickrt.engines.bundle import machine
from tickrt.engines.bundle.compat import check_here
from tickrt.engines.bundle.crypto import load_aes_key, load_private_key, new_keys
from tickrt.engines.bundle.format import Bundle, open_bundle, write_bundle
from tickrt.engines.bundle.machine import Here, platform_name
from tickrt.engines.resident.compile import compiler
from tickrt.errors import (
    BuildError,
    BundleError,
    ConfigError,
    EngineError,
    IncompatibleError,
    PrecisionError,
    TamperedError,
)
from tickrt.models.architectures.zoo import recurrent
from tickrt.runtime.backends.resident_bundle import GPU_ROWS, HOST_ROWS, PARITY, read
from tickrt.runtime.session import Session

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the path")


def model_in(folder: Path) -> Path:
    spec = tiny_spec(folder, T)
    made = recurrent("LSTM", 2, 6, T, spec.width, seed=3)
    onnx.helper.set_model_props(made, {"tickrt.feature_hash": spec.hash})
    path = folder / "lstm.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, keys, a market and the model's bundle, signed and encrypted."""
    folder = tmp_path_factory.mktemp("desk")
    built = build(BuildRequest(model_in(folder), backend="resident"))
    keys = new_keys(folder / "k")
    aes, sign = load_aes_key(str(keys["aes"])), load_private_key(str(keys["private"]))
    write_built(built, folder / "lstm.bundle", aes, sign)
    write_built(built, folder / "open.bundle")
    market_file(folder / "m.npz", 60, clear_at=30)
    return folder


def run(desk: Path, model: str, **changes: Any) -> tuple[dict[str, Any], np.ndarray]:
    """What the engine says of itself, and the signals."""
    keys = {"trust": (str(next((desk / "k").glob("*.pub"))),)}
    chosen = settings(desk, model=str(desk / model))
    given = {**keys, "deadline_us": 1e7, **changes}
    with Session(config(desk, desk / "m.npz", chosen, **given)) as session:
        session.run()
        (engine,) = session.assembly.engines
        return engine.describe(), session.signals()["p_up"].copy()


def aes_of(desk: Path) -> str:
    return str(next((desk / "k").glob("*.aes.key")))


def opened(desk: Path) -> Bundle:
    return open_bundle(desk / "open.bundle", allow_unsigned=True)


def rewritten(desk: Path, folder: Path, **payloads: bytes) -> Path:
    """The open bundle with other payloads."""
    with opened(desk) as bundle:
        content = {entry.name: bundle.payload(entry.name) for entry in bundle.entries}
        write_bundle(folder / "other.bundle", bundle.manifest, {**content, **payloads})
    return folder / "other.bundle"


def test_it_is_built_and_shown_by_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = model_in(tmp_path), tmp_path / "x.bundle"
    command = ["build", str(model), "-o", str(out), "--backend", "resident", "--target", "9.0"]
    assert main([*command, "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["gpu_arch"] == ["9.0"]
    assert built["parity"]["status"] == "passed"
    assert built["parity"]["max_abs"] < 1e-5
    assert built["parity"]["reason"].startswith("the program in NumPy, not the GPU")
    assert main(["bundle", "inspect", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [engine["format"] for engine in shown["manifest"]["engines"]] == ["resident"]
    names = {payload["name"] for payload in shown["payloads"]}
    assert names == {"full.resident", GPU_ROWS, HOST_ROWS, PARITY, "source.onnx"}
    other = tmp_path / "y.bundle"
    rebuild = ["build", "--rebuild", str(out), "-o", str(other), "--allow-unsigned"]
    assert main([*rebuild, "--json"]) == 0  # what it was, not what `auto` would take here
    again = json.loads(capsys.readouterr().out)
    assert [engine["format"] for engine in again["engines"]] == ["resident"]
    assert main([*rebuild, "--force", "--backend", "onnxruntime"]) == 0
    capsys.readouterr()
    assert main(["bundle", "diff", str(out), str(other), "--json"]) in (0, 1)
    fields = json.dumps(json.loads(capsys.readouterr().out))
    assert "gpu-rows.resident" in fields
    assert "onnxruntime" in fields


def test_equal_builds_are_equal(desk: Path, tmp_path: Path) -> None:
    write_built(build(BuildRequest(desk / "lstm.onnx", backend="resident")), tmp_path / "b.bundle")
    assert (tmp_path / "b.bundle").read_bytes() == (desk / "open.bundle").read_bytes()


@pytest.mark.parametrize("sealed", [True, False])
def test_the_loop_runs_it_without_a_compiler(
    sealed: bool, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = run(desk, "lstm.onnx", backend="onnxruntime")
    resident_stand_in.hosts(monkeypatch, builds="no nvcc on the path")
    monkeypatch.setenv("PATH", str(tmp_path))
    how = {"bundle_key": aes_of(desk)} if sealed else {"trust": (), "allow_unsigned": True}
    model = "lstm.bundle" if sealed else "open.bundle"
    facts, signals = run(desk, model, backend="resident", **how)
    np.testing.assert_allclose(signals, expected, rtol=1e-5, atol=1e-6)
    assert facts["backend"] == "resident"
    assert facts["model"] == "lstm"
    assert 0.0 <= facts["parity_max_abs"] < 1e-6


def test_a_gpu_that_answers_otherwise_is_refused(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident_stand_in.hosts(monkeypatch, resident_stand_in.WRONG)
    words = r"answers to \d+ parity rows differ by up to 0\.0001, at most 1e-05"
    with pytest.raises(EngineError, match=words):
        run(desk, "lstm.bundle", backend="resident", bundle_key=aes_of(desk))


@pytest.mark.parametrize("name", ["full.resident", HOST_ROWS, PARITY])
def test_a_damaged_payload_is_refused(
    name: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((desk / "open.bundle").read_bytes())
    with opened(desk) as bundle:
        start = len(bundle.signed) - 128
        entry = next(entry for entry in bundle.entries if entry.name == name)
    data[start + entry.offset + entry.stored // 2] ^= 1
    (tmp_path / "bad.bundle").write_bytes(data)
    resident_stand_in.hosts(monkeypatch)
    with pytest.raises(TamperedError, match=f"payload '{name}' is damaged"):
        run(
            desk,
            str(tmp_path / "bad.bundle"),
            backend="resident",
            trust=(),
            allow_unsigned=True,
        )


def test_payloads_that_do_not_fit_one_another(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident_stand_in.hosts(monkeypatch)
    given = {"backend": "resident", "trust": (), "allow_unsigned": True}
    path = rewritten(desk, tmp_path, **{PARITY: b"\0" * 40})
    with pytest.raises(BundleError, match=r"10 numbers in parity\.f32: expected \d+ rows"):
        run(desk, str(path), **given)
    path = rewritten(desk, tmp_path, **{HOST_ROWS: b"tickrt-resident 1\n{}\n"})
    with pytest.raises(EngineError, match="the resident kernel is damaged"):
        run(desk, str(path), **given)


@pytest.mark.parametrize("damage", ["magic", "head", "facts", "program", "short"])
def test_a_damaged_program_is_refused(damage: str, desk: Path) -> None:
    with opened(desk) as bundle:
        data = bundle.payload("full.resident")
    magic, head, program = data.split(b"\n", 2)
    damaged = {
        "magic": data[1:],
        "head": b"\n".join([magic, head[1:], program]),
        "facts": b"\n".join([magic, b'{"rows": true}', program]),
        "program": b"\n".join([magic, head, program[1:]]),
        "short": data[:-1],
    }[damage]
    with pytest.raises(BundleError, match="here: "):
        read(damaged, "here")
    assert builder("resident").check(damaged)[0] == "failed"
    assert read(data, "here").facts["weights"] == "fp32"


def test_what_can_be_verified_without_a_gpu_is(desk: Path) -> None:
    checks = {c.what: c for c in verify(desk / "open.bundle", allow_unsigned=True)}
    assert checks["engine full"].result == "ok"
    assert checks["compatible with this machine"].result == "ok"
    assert checks["compatible with this machine"].why.startswith("but for the GPU")
    assert checks["parity at build"].result == "ok"
    assert "NumPy" in checks["parity at build"].why
    width = tiny_spec(desk, T).width
    rows = np.random.default_rng(1).standard_normal((3 * T, width)).astype(np.float32)
    parity, _, _ = verify_on_target(desk / "open.bundle", rows, "rows", allow_unsigned=True)
    assert parity.status == "passed"
    assert parity.reason.startswith("the program in NumPy, not the GPU")


def test_this_process_does_not_ask_cuda(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: pytest.fail("CUDA was called"))
    with opened(desk) as bundle:
        check_here(bundle.manifest, "x.bundle")
        manifest = bundle.manifest
    older = manifest.model_copy(
        update={"builder": manifest.builder.model_copy(update={"version": "0.0.1"})}
    )
    words = r"resident: built for 0\.0\.1, here .*tickrt build --rebuild .* --backend resident$"
    with pytest.raises(IncompatibleError, match=words):
        check_here(older, "x.bundle")
    here = Here((), {"resident": manifest.builder.version}, "linux-aarch64")
    with pytest.raises(IncompatibleError, match=f"platform: built for {platform_name()}, here lin"):
        check_here(manifest, "x.bundle", here)


def test_settings_that_it_was_not_built_for(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident_stand_in.hosts(monkeypatch)
    given = {"trust": (), "allow_unsigned": True}
    for changes, words in (
        ({"stateful": True}, "built without --stateful"),
        ({"split": False}, "build it with --no-split"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(desk, "open.bundle", backend="resident", **given, **changes)
    with pytest.raises(IncompatibleError, match="--backend resident"):
        run(desk, "open.bundle", backend="native", **given)


def test_carried_states_are_compared_too(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "carry.bundle"
    request = BuildRequest(desk / "lstm.onnx", backend="resident", stateful=True)
    built = build(request)
    assert built.manifest.parity.status == "passed"
    write_built(built, path)
    given = {"stateful": True, "trust": (), "allow_unsigned": True}
    _, expected = run(desk, "lstm.onnx", backend="onnxruntime", **given)
    resident_stand_in.hosts(monkeypatch)
    facts, signals = run(desk, str(path), backend="resident", **given)
    np.testing.assert_allclose(signals, expected, rtol=1e-5, atol=1e-6)
    assert facts["parity_max_abs"] < 1e-6


def test_what_cannot_be_built_says_why(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"--target 8\.9: .* builds for compute capability 9\.0"):
        builder("resident", ("8.9",))
    assert "not 12.x" in probe("resident", ("12.x",)).builds
    request = BuildRequest(desk / "lstm.onnx", backend="resident", precision="int8")
    with pytest.raises(PrecisionError, match="int8: the resident backend cannot compute in it"):
        build(request)
    compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        with pytest.raises(BuildError, match="--backend resident: no nvcc on the path"):
            build(BuildRequest(desk / "lstm.onnx", backend="resident"))
        resident_stand_in.hosts(monkeypatch, builds="no nvcc on the path")
        with pytest.raises(BuildError, match=r"lstm\.onnx: no nvcc .* or run a bundle"):
            run(desk, "lstm.onnx", backend="resident")
    finally:
        compiler.cache_clear()
