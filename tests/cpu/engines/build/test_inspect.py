"""Inspecting, verifying and comparing bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.engine_zoo import ZOO, F
from tickrt.engines.build.build import BuildRequest, Built, build, write_built
from tickrt.engines.build.inspect import describe, diff, verify, verify_on_target
from tickrt.engines.bundle.crypto import load_aes_key, load_private_key, new_keys
from tickrt.engines.bundle.format import TRAILER, write_bundle
from tickrt.errors import BundleError, IncompatibleError, TamperedError

ROWS = (np.random.default_rng(0).normal(size=(120, F)).cumsum(0) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    path = tmp_path_factory.mktemp("model") / "lstm.onnx"
    onnx.save(ZOO["lstm"](), path)
    return build(BuildRequest(path, backend="onnxruntime", precision="fp16"), ROWS, "walk")


def results(checks: Any) -> dict[str, str]:
    return {check.what: check.result for check in checks}


def test_describe_needs_no_key(built: Built, tmp_path: Path) -> None:
    paths = new_keys(tmp_path / "k")
    aes, sign = load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))
    path = tmp_path / "x.bundle"
    digest = write_built(built, path, aes, sign)
    facts = describe(path)
    assert facts["digest"] == digest
    assert facts["encrypted"] is True
    assert facts["signed_by"] == sign.public.key_id.hex()
    assert facts["manifest"]["parity"]["status"] == "passed"
    assert facts["manifest"]["engines"][1]["precision"]
    checks = results(verify(path))
    assert checks["signature"] == "not checked"
    assert checks["engine step"] == "not checked"
    full = results(verify(path, [sign.public], aes))
    assert set(full.values()) == {"ok"}
    assert {"digest", "signature", "payloads", "engine pre", "parity at build"} <= set(full)
    wrong = load_aes_key(str(new_keys(tmp_path / "k2")["aes"]))
    assert results(verify(path, [sign.public], wrong))["payloads"] == "failed"
    with pytest.raises(TamperedError):
        verify(path, [load_private_key(str(tmp_path / "k2" / "tickrt.sign.key")).public])


def test_engines_nobody_vouches_for_are_not_loaded(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    payloads = dict(built.payloads) | {"step.onnx": b"not a model"}
    assert payloads.keys() == built.payloads.keys()
    write_bundle(path, built.manifest, payloads)
    assert results(verify(path))["engine step"] == "not checked"
    assert results(verify(path, allow_unsigned=True))["engine step"] == "failed"


def test_verify_finds_damage_and_other_machines(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    write_built(built, path)
    data = bytearray(path.read_bytes())
    data[-TRAILER.size - 5] ^= 1
    path.write_bytes(data)
    checks = results(verify(path))
    assert checks["payloads"] == "failed"
    assert "engine step" not in checks
    elsewhere = built.manifest.builder.model_copy(
        update={"backend": "tensorrt", "library": "tensorrt", "gpu_arch": ("8.9",)}
    )
    plans = tuple(
        engine.model_copy(update={"format": "tensorrt"}) for engine in built.manifest.engines
    )
    manifest = built.manifest.model_copy(update={"builder": elsewhere, "engines": plans})
    write_bundle(path, manifest, built.payloads)
    checks = results(verify(path))
    assert checks["compatible with this machine"] == "no"
    assert checks["engine step"] == "not checked"
    with pytest.raises(IncompatibleError, match="rebuild it here with"):
        verify_on_target(path, ROWS, "walk", allow_unsigned=True)


def test_verify_on_target_puts_the_figures_in(built: Built, tmp_path: Path) -> None:
    path, again = tmp_path / "x.bundle", tmp_path / "y.bundle"
    write_built(built, path)
    parity, manifest, payloads = verify_on_target(path, ROWS[:60], "target", allow_unsigned=True)
    assert parity.status == "passed"
    assert parity.data == "target"
    write_bundle(again, manifest, payloads)
    fields = {field: (a, b) for field, a, b in diff(path, again)}
    assert fields["manifest.parity.data"] == ("walk", "target")
    assert "manifest.precision" not in fields
    bare = tmp_path / "bare.bundle"
    write_bundle(bare, manifest, {k: v for k, v in payloads.items() if k != "source.onnx"})
    with pytest.raises(BundleError, match="--no-embed"):
        verify_on_target(bare, ROWS, "walk", allow_unsigned=True)


def test_diff_of_equal_bundles_is_empty(built: Built, tmp_path: Path) -> None:
    for name in "ab":
        write_built(built, tmp_path / name)
    assert diff(tmp_path / "a", tmp_path / "b") == []
