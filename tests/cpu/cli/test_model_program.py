"""``tickrt model program``: a model as loops, as text and as JSON; and the page that shows one."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import typer
from typer.testing import CliRunner

from helpers.engine_zoo import Net
from helpers.pages import DOCS
from helpers.programs import checked
from helpers.programs import program as program_of
from tickrt.cli.model import list_, program
from tickrt.errors import ConfigError, ModelError
from tickrt.models import find_model
from tickrt.models.architectures import zoo
from tickrt.program.text import describe

app = typer.Typer()
app.command("list")(list_)
app.command("program")(program)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["program", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(zoo.recurrent("LSTM", 1, 6, 10, 4), str(path))
    return str(path)


def test_shows_the_split(model: str) -> None:
    text = run(model)
    assert text.startswith("program: model small.onnx, ")
    assert "10 rows × 4 in, 3 out; runs from row 10 on" in text
    assert "\nadvance: row seq's order is out" in text


def test_blocks_are_those_of_a_kernel(model: str) -> None:
    with pytest.raises(ConfigError, match="--blocks: of the kernel that --cuda shows"):
        run(model, "--blocks", "2")
    assert "__cluster_dims__(2, 1, 1)" in run(model, "--blocks", "2", "--cuda")


def test_shows_the_whole_model(model: str) -> None:
    facts = json.loads(run(model, "--whole", "--json"))
    assert (facts["mode"], facts["why_whole"]) == ("whole", None)
    assert facts["operations"]["advance"] == 0
    assert facts["text"] == run(model, "--whole")
    assert "for i0 < 10:" in facts["text"]  # the recurrence over the window


def test_carried_states_have_a_first_section(model: str) -> None:
    assert "\nfirst: once" in run(model, "--stateful")


def test_a_model_that_cannot_be_split_says_why(tmp_path: Path) -> None:
    net = Net("last")
    onnx.save(net.model(net.head(net.last("rows"), 8)), str(tmp_path / "last.onnx"))
    facts = json.loads(run(str(tmp_path / "last.onnx"), "--json"))
    assert facts["mode"] == "whole"
    assert "nothing can be moved off the path" in facts["why_whole"]


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    net = Net("mod")
    x = net.op("Mod", net.last("rows"), net.last("rows"), fmod=1, name="odd")
    onnx.save(net.model(net.head(x, 8)), str(tmp_path / "mod.onnx"))
    with pytest.raises(ModelError, match=r"operator Mod \('odd'\) has no rule"):
        run(str(tmp_path / "mod.onnx"))


def test_the_page_shows_what_the_command_prints() -> None:
    made = program_of(checked(onnx.load(find_model("seed_lstm").onnx)), "bank")
    assert made is not None
    page = (DOCS / "program.md").read_text(encoding="utf-8")
    shown = page.split("```text\n")[1].split("\n```")[0]
    text = describe(made)
    assert shown == text[text.index("step:") : text.index("\n\nadvance:")]
