"""``tickrt split`` and ``tickrt bench split``: what they print and write, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from typer.testing import CliRunner

from tickrt.cli.bench_split import bench_split
from tickrt.cli.split import split
from tickrt.models.architectures.net import Net
from tickrt.models.architectures.zoo import recurrent

app = typer.Typer()
app.command("split")(split)
app.command("bench")(bench_split)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "lstm.onnx"
    onnx.save(recurrent("LSTM", 1, 6, 10, 4), str(path))
    return str(path)


def test_prints_what_is_left_on_the_path(model: str) -> None:
    code, out = run("split", model, "--seconds", "0")
    words = " ".join(out.split())
    assert code == 0
    assert "probabilities: multiply-adds" in words
    assert "parity on random rows equal" in words


def test_writes_the_graphs_and_the_drawing(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, out = run("split", model, "-o", str(folder), "--json", "--seconds", "0.05")
    facts = json.loads(out)
    assert code == 0
    assert facts["split"] is True
    assert facts["parity"]["random"]["ok"] is True
    assert facts["times_us"]["off_path"] in ("pre", "advance")
    names = ["pre.onnx", "step.onnx", "advance.onnx", "split.json", "split.svg"]
    assert [Path(path).name for path in facts["files"]] == names
    assert all((folder / name).is_file() for name in names)


def test_a_model_that_runs_whole_says_why(tmp_path: Path) -> None:
    net = Net(5, 3)
    model = net.model(net.op("ReduceLogSumExp", "rows", axes=[1], keepdims=0), "sum")
    path = tmp_path / "sum.onnx"
    onnx.save(model, str(path))
    code, out = run("split", str(path))
    assert code == 0
    assert "runs whole" in out
    code, out = run("split", str(path), "--json")
    assert json.loads(out)["split"] is False


def test_exit_code_1_when_parity_fails(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tickrt.engines.split as package
    from tickrt.engines.split import Parity

    def wrong(*_: Any, **__: Any) -> Parity:
        return Parity(1, 0.5, 0.1, {"probabilities": 0.1})

    monkeypatch.setattr(package, "verify", wrong)
    code, out = run("split", model, "--seconds", "0")
    assert code == 1
    assert "DIFFERENT" in out


def test_bench_compares_whole_and_split(model: str) -> None:
    code, out = run("bench", model, "--seconds", "0.05", "--json")
    (facts,) = json.loads(out)
    assert code == 0
    assert facts["parity"]["ok"] is True
    assert facts["speedup"] > 0
    assert run("bench", model, "--seconds", "0.05")[0] == 0
