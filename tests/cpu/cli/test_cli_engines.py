"""``tickrt build | inspect | diff | keys | registry | rebuild | verify-on-target`` as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.sessions import market_file, tiny_model, tiny_spec
from tickrt.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=pytest.fail)


class Shell:
    """Runs ``tickrt`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        code = main([str(a) for a in arguments])
        return Result(code, *self._capsys.readouterr())


@pytest.fixture
def tickrt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("TICKRT_TRUST", "TICKRT_KEY", "TICKRT_SIGN", "TICKRT_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    return Shell(capsys)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tiny_spec(tmp_path), tmp_path / "tiny.onnx")


BACKEND = ("--backend", "onnxruntime")


@pytest.mark.parametrize(
    "command",
    [
        ["build"],
        ["inspect"],
        ["diff"],
        ["verify-on-target"],
        ["rebuild"],
        ["keys", "new"],
        *(["registry", c] for c in ("add", "list", "promote", "rollback", "history", "gc")),
    ],
)
def test_help(tickrt: Shell, command: list[str]) -> None:
    result = tickrt(*command, "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_from_keys_to_a_promoted_bundle(tickrt: Shell, model: Path, tmp_path: Path) -> None:
    made = tickrt("keys", "new", tmp_path / "k", "--json").json()
    first, second = tmp_path / "a.bundle", tmp_path / "b.bundle"
    signed = ("--sign", f"file:{made['private']}")
    trust = ("--trust", f"file:{made['public']}")
    built = tickrt("build", model, "-o", first, *BACKEND, *signed, "--json").json()
    assert built["parity"]["status"] == "passed"
    assert built["signed"] is True
    sealed = ("--encrypt", made["aes"], "--precision", "fp16")
    assert tickrt("build", model, "-o", second, *BACKEND, *signed, *sealed).code == 0
    shown = tickrt("inspect", second, "--json").json()
    assert shown["signed_by"] == made["key_id"]
    assert shown["manifest"]["precision"] == "fp16"
    checked = tickrt("inspect", second, "--verify", *trust, "--key", made["aes"], "--json").json()
    assert {check["result"] for check in checked["checks"]} == {"ok"}
    table = tickrt("inspect", second, "--layers")
    assert "probabilities" in table.out
    assert "float32 [" in table.out
    differs = tickrt("diff", first, second, "--json")
    assert differs.code == 1
    assert "manifest.precision" in {entry["field"] for entry in json.loads(differs.out)}
    assert tickrt("diff", first, first).out.strip() == "no difference"

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


def test_what_is_refused(tickrt: Shell, model: Path, tmp_path: Path) -> None:
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
        (["inspect", model], "not a tickrt bundle"),
        (["registry", "list", "--registry", tmp_path / "none"], "no registry"),
        (["rebuild", "--watch", tmp_path / "none"], "no such folder"),
        (["rebuild", "--watch", tmp_path, "--once", "--registry", tmp_path / "r2"], "--trust"),
        (["split", old], "UFF"),
        (["split", broken], "not a readable ONNX model"),
        (["bench", "split", broken], "not a readable ONNX model"),
        (["build", model, "-o", out, *BACKEND, "--profile", "rows=1:1:8"], "TensorRT only"),
        (["build", model, "-o", out, *BACKEND, "--sparse"], "--sparse"),
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


def test_calibration_and_parity_on_real_rows(tickrt: Shell, tmp_path: Path) -> None:
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
    manifest = tickrt("inspect", out, "--json").json()["manifest"]
    assert manifest["calibration"]["method"] == "percentile"
    assert manifest["calibration"]["samples"] == 32
    parity = tickrt(
        "verify-on-target", out, "-d", events, "--spec", spec, "--allow-unsigned", "-o", again,
        "--json",
    ).json()  # fmt: skip
    assert parity["status"] == "passed"
    rebuild = ("build", "--rebuild", out, "-o", again, *BACKEND, *rows, "--json")
    assert "--allow-unsigned" in tickrt(*rebuild).err
    rebuilt = tickrt(*rebuild, "--allow-unsigned").json()
    assert rebuilt["precision"] == "int8"


def test_what_was_encrypted_stays_encrypted(tickrt: Shell, tmp_path: Path) -> None:
    model = tiny_model(tiny_spec(tmp_path), tmp_path / "tiny.onnx")
    (spec,) = tmp_path.glob("*.toml")
    events = market_file(tmp_path / "events.npz", 200)
    made = tickrt("keys", "new", tmp_path / "k", "--json").json()
    first, second, third = (tmp_path / f"{name}.bundle" for name in "abc")
    assert tickrt("build", model, "-o", first, *BACKEND, "--encrypt", made["aes"]).code == 0
    key = ("--key", made["aes"], "--allow-unsigned")
    on_target = tickrt("verify-on-target", first, "-d", events, "--spec", spec, "-o", second, *key)
    assert on_target.code == 0, on_target.err
    assert tickrt("build", "--rebuild", second, "-o", third, *BACKEND, *key).code == 0
    for bundle in (first, second, third):
        assert tickrt("inspect", bundle, "--json").json()["encrypted"] is True


def test_rebuild_once(tickrt: Shell, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.onnx").write_bytes(model.read_bytes())
    (folder / "bad.onnx").write_bytes(b"bad")
    result = tickrt(
        "rebuild", "--watch", folder, "--once", "--registry", tmp_path / "reg", "--allow-unsigned",
        "--json", "--", *BACKEND, "--precision", "fp16",
    )  # fmt: skip
    lines = [json.loads(line) for line in result.out.splitlines()]
    outcomes = {Path(line["model"]).name: line for line in lines}
    assert result.code == 1
    assert outcomes["good.onnx"]["digest"], outcomes
    assert outcomes["bad.onnx"]["error"]
    listed = tickrt("registry", "list", "--registry", tmp_path / "reg", "--json").json()
    assert [(row["precision"], row["channels"]) for row in listed] == [("fp16", ["canary"])]
