"""``tickrt build | bundle | keys | registry`` as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Result
from helpers.sessions import market_file, tiny_model, tiny_spec
from tickrt.engines.bundle.format import TRAILER

Tickrt = Callable[..., Result]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tiny_spec(tmp_path), tmp_path / "tiny.onnx")


BACKEND = ("--backend", "onnxruntime")


def test_from_keys_to_a_promoted_bundle(tickrt: Tickrt, model: Path, tmp_path: Path) -> None:
    made = tickrt("keys", "new", tmp_path / "k", "--json").json()
    first, second = tmp_path / "a.bundle", tmp_path / "b.bundle"
    signed = ("--sign", f"file:{made['private']}")
    trust = ("--trust", f"file:{made['public']}")
    built = tickrt("build", model, "-o", first, *BACKEND, *signed, "--json").json()
    assert built["parity"]["status"] == "passed"
    assert built["signed"] is True
    sealed = ("--encrypt", made["aes"], "--precision", "fp16")
    assert tickrt("build", model, "-o", second, *BACKEND, *signed, *sealed).code == 0
    shown = tickrt("bundle", "inspect", second, "--json").json()
    assert shown["signed_by"] == made["key_id"]
    assert shown["manifest"]["precision"] == "fp16"
    checked = tickrt("bundle", "verify", second, *trust, "--key", made["aes"], "--json").json()
    assert {check["result"] for check in checked["checks"]} == {"ok"}
    table = tickrt("bundle", "inspect", second, "--layers")
    assert "probabilities" in table.out
    assert "float32 [" in table.out
    differs = tickrt("bundle", "diff", first, second, "--json")
    assert differs.code == 1
    assert "manifest.precision" in {entry["field"] for entry in json.loads(differs.out)}
    assert tickrt("bundle", "diff", first, first).out.strip() == "no difference"
    damaged = tmp_path / "damaged.bundle"
    data = bytearray(first.read_bytes())
    data[-TRAILER.size - 5] ^= 1  # in the last payload
    damaged.write_bytes(data)
    for pair in ((first, damaged), (damaged, first)):
        refused = tickrt("bundle", "diff", *pair)
        assert refused.code == 2
        assert "no difference" not in refused.out
        assert f"{damaged}: payload " in refused.err
        assert "is damaged or was replaced" in refused.err

    root = ("--registry", tmp_path / "reg")
    digests = [
        tickrt("registry", "add", b, *root, *trust, "--json").json()["digest"]
        for b in (first, second)
    ]
    assert digests[0] == built["digest"]
    for digest in digests:
        assert tickrt("registry", "promote", digest[:12], "prod", *root, *trust).code == 0
    back = tickrt("registry", "rollback", "prod", *root, *trust, "--note", "slow", "--json").json()
    assert back["digest"] == digests[0]
    listed = tickrt("registry", "list", *root, "--json").json()
    assert {row["digest"]: row["channels"] for row in listed} == {
        digests[0]: ["prod"],
        digests[1]: [],
    }
    records = tickrt("registry", "history", "prod", *root, "--json").json()
    assert [r["operation"] for r in records] == ["promote", "promote", "rollback"]
    assert "slow" in tickrt("registry", "history", *root).out
    dropped = tickrt("registry", "gc", *root, "--keep", 0, "--grace-hours", 0, "--json").json()
    assert dropped["dropped"] == [digests[1]]


def test_what_is_refused(tickrt: Tickrt, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.bundle"
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    old = tmp_path / "net.uff"
    old.write_bytes(b"uff")
    for arguments, words in (
        (["build"], "name a shipped model"),
        (["build", "net.caffemodel"], "Caffe"),
        (["build", model, "-o", out, *BACKEND, "--precision", "int8"], "--calibrate"),
        (["build", model, "-o", out, *BACKEND, "--sign", secret], "file:PATH"),
        (["build", model, "-o", out, *BACKEND, "--keep", "nothing", "--precision", "fp16"], "near"),
        (["bundle", "inspect", model], "not a tickrt bundle"),
        (["registry", "list", "--registry", tmp_path / "none"], "no registry"),
        (["registry", "watch", tmp_path / "none"], "no such folder"),
        (["registry", "watch", tmp_path, "--once", "--registry", tmp_path / "r2"], "--trust"),
        (["split", old], "UFF"),
        (["split", broken], "not a readable ONNX model"),
        (["bench", "split", broken], "not a readable ONNX model"),
        (["build", model, "-o", out, *BACKEND, "--profile", "rows=1:1:8"], "no use for it"),
        (["build", model, "-o", out, *BACKEND, "--sparse-weights"], "--sparse-weights"),
    ):
        result = tickrt(*arguments)
        assert result.code == 2, arguments
        assert words in result.err
        assert secret not in result.err
        assert not out.exists()
    assert tickrt("build", model, "-o", out, *BACKEND).code == 0
    refused = tickrt("registry", "add", out, "--registry", tmp_path / "r")
    assert refused.code == 2
    assert "--allow-unsigned" in refused.err


def test_calibration_and_parity_on_real_rows(tickrt: Tickrt, tmp_path: Path) -> None:
    model = tiny_model(tiny_spec(tmp_path), tmp_path / "tiny.onnx")
    (spec,) = tmp_path.glob("*.toml")
    events = market_file(tmp_path / "events.npz", 200)
    out, again = tmp_path / "x.bundle", tmp_path / "y.bundle"
    rows = ("--calibrate", events, "--spec", spec)
    built = tickrt(
        "build", model, "-o", out, *BACKEND, *rows, "--precision", "int8", "--method", "percentile",
        "--samples", 32, "--keep", "softmax", "--tolerance", 0.5, "--json",
    ).json()  # fmt: skip
    assert built["parity"]["data"] == "events.npz"
    manifest = tickrt("bundle", "inspect", out, "--json").json()["manifest"]
    assert manifest["calibration"]["method"] == "percentile"
    assert manifest["calibration"]["samples"] == 32
    parity = tickrt(
        "bundle", "verify", out, "--parity", "-d", events, "--spec", spec, "--allow-unsigned",
        "-o", again, "--json",
    ).json()["parity"]  # fmt: skip
    assert parity["status"] == "passed"
    rebuild = ("build", "--rebuild", out, "-o", again, "--force", *BACKEND, *rows, "--json")
    assert "--allow-unsigned" in tickrt(*rebuild).err
    rebuilt = tickrt(*rebuild, "--allow-unsigned").json()
    assert rebuilt["precision"] == "int8"


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--precision", "fp16"], "--precision"),
        (["--profile", "rows=1:1:8"], "--profile"),
        (["--memory-pool-limit", 64], "--memory-pool-limit"),
        (["--builder-optimization-level", 3], "--builder-optimization-level"),
        (["--no-split"], "--split"),
        (["--samples", 9, "--keep", "softmax"], "--keep, --samples"),
    ],
)
def test_a_rebuild_refuses_what_it_would_ignore(
    tickrt: Tickrt, model: Path, tmp_path: Path, option: list[object], named: str
) -> None:
    out, again = tmp_path / "x.bundle", tmp_path / "y.bundle"
    assert tickrt("build", model, "-o", out, *BACKEND).code == 0
    result = tickrt("build", "--rebuild", out, "-o", again, *BACKEND, "--allow-unsigned", *option)
    assert result.code == 2
    assert f"{named}: a rebuild takes" in result.err
    assert not again.exists()


def test_verify_asks_for_what_parity_needs(tickrt: Tickrt, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.bundle"
    assert tickrt("build", model, "-o", out, *BACKEND).code == 0
    for wrong in (["--parity"], ["--data", "x.npz"], ["-o", "y.bundle"]):
        result = tickrt("bundle", "verify", out, "--allow-unsigned", *wrong)
        assert result.code == 2
        assert "--parity" in result.err
    checked = tickrt("bundle", "verify", out, "--allow-unsigned")
    assert checked.code == 0
    assert "payload" in checked.out


def test_what_was_encrypted_stays_encrypted(tickrt: Tickrt, tmp_path: Path) -> None:
    model = tiny_model(tiny_spec(tmp_path), tmp_path / "tiny.onnx")
    (spec,) = tmp_path.glob("*.toml")
    events = market_file(tmp_path / "events.npz", 200)
    made = tickrt("keys", "new", tmp_path / "k", "--json").json()
    first, second, third = (tmp_path / f"{name}.bundle" for name in "abc")
    assert tickrt("build", model, "-o", first, *BACKEND, "--encrypt", made["aes"]).code == 0
    key = ("--key", made["aes"], "--allow-unsigned")
    on_target = tickrt(
        "bundle", "verify", first, "--parity", "-d", events, "--spec", spec, "-o", second, *key
    )
    assert on_target.code == 0, on_target.err
    assert tickrt("build", "--rebuild", second, "-o", third, *BACKEND, *key).code == 0
    for bundle in (first, second, third):
        assert tickrt("bundle", "inspect", bundle, "--json").json()["encrypted"] is True


def test_watch_once(tickrt: Tickrt, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.onnx").write_bytes(model.read_bytes())
    (folder / "bad.onnx").write_bytes(b"bad")
    result = tickrt(
        "registry", "watch", folder, "--once", "--registry", tmp_path / "reg", "--allow-unsigned",
        "--json", "--", *BACKEND, "--precision", "fp16",
    )  # fmt: skip
    lines = [json.loads(line) for line in result.out.splitlines()]
    outcomes = {Path(line["model"]).name: line for line in lines}
    assert result.code == 1
    assert outcomes["good.onnx"]["digest"], outcomes
    assert outcomes["bad.onnx"]["error"]
    listed = tickrt("registry", "list", "--registry", tmp_path / "reg", "--json").json()
    assert [(row["precision"], row["channels"]) for row in listed] == [("fp16", ["canary"])]
