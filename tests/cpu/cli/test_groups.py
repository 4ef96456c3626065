"""Option groups: the fields of a dataclass become options, and the command gets the dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tickrt.cli.groups import grouped


@dataclass(frozen=True)
class Size:
    width: Annotated[int | None, typer.Option("--width", "-w", min=1)] = None
    tall: Annotated[bool | None, typer.Option("--tall/--short")] = None


@dataclass(frozen=True)
class Paint:
    colours: Annotated[list[str] | None, typer.Option("--colour")] = None


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def app(seen: list[object]) -> typer.Typer:
    @grouped
    def draw(size: Size, name: str, paint: Paint, plain: bool = False) -> None:
        """Draws."""
        seen.extend([size, name, paint, plain])

    made = typer.Typer()
    made.command()(draw)
    return made


def test_fields_are_options(app: typer.Typer, seen: list[object]) -> None:
    given = ["box", "-w", "3", "--short", "--colour", "red", "--colour", "blue", "--plain"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert seen == [Size(3, False), "box", Paint(["red", "blue"]), True]


def test_what_is_not_given_has_the_fields_default(app: typer.Typer, seen: list[object]) -> None:
    assert CliRunner().invoke(app, ["box"]).exit_code == 0
    assert seen == [Size(None, None), "box", Paint(None), False]


def test_bounds_and_help_are_the_fields(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["box", "-w", "0"]).exit_code == 2
    text = CliRunner().invoke(app, ["--help"]).output
    assert "--tall" in text
    assert "Draws." in text
