"""What commands say beside their result: on stderr, as loud as asked for, as JSON on request."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from helpers.commands import Result
from tickrt.cli import log, progress

Tickrt = Callable[..., Result]


@pytest.fixture
def run(session: Path) -> list[object]:
    return ["run", "--data", session / "btc.npz", "--backend", "null", "--spec", "light"]


def test_a_command_is_silent_unless_asked(tickrt: Tickrt, run: list[object]) -> None:
    assert tickrt(*run).err == ""
    said = tickrt("-v", *run).err
    assert said.startswith("info: loaded ")
    assert "results go to out/run-" in said


def test_json_lines(tickrt: Tickrt, run: list[object]) -> None:
    result = tickrt("-v", "--log-json", *run)
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert len(lines) >= 2
    for line in lines:
        assert set(line) == {"time", "level", "logger", "message"}
        assert line["level"] == "info"
        assert line["logger"] == "tickrt.cli"
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None


def test_levels(capsys: pytest.CaptureFixture[str], tickrt: Tickrt) -> None:
    expected = {-1: {"error"}, 0: {"error", "warning"}, 1: {"error", "warning", "info"}}
    expected[2] = expected[1] | {"debug"}
    logger = logging.getLogger("tickrt.anything")
    for verbosity, levels in expected.items():
        log.set_up(verbosity, as_json=False)
        for level in ("debug", "info", "warning", "error"):
            getattr(logger, level)("[bold]said[/bold]")
        lines = capsys.readouterr().err.splitlines()
        assert {line.split(":")[0] for line in lines} == levels
        assert all(line.endswith(": [bold]said[/bold]") for line in lines)  # no markup


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str], tickrt: Tickrt) -> None:
    log.set_up(0, as_json=True)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("tickrt").exception("while testing")
    assert "ValueError: broken" in json.loads(capsys.readouterr().err)["exception"]


def test_quiet_and_json_lines_show_no_progress(tickrt: Tickrt) -> None:
    for options, shown in ((["-q"], False), (["--log-json"], False), ([], True)):
        tickrt(*options, "spec", "hash", "light")
        assert progress.shown is shown


def test_loud_and_quiet_at_once_is_refused(tickrt: Tickrt) -> None:
    assert tickrt("-v", "-q", "spec", "hash", "light").code == 2


def test_importing_tickrt_leaves_logging_alone() -> None:
    code = (
        "import logging, tickrt, tickrt.cli, tickrt.cli.app\n"
        "assert not logging.getLogger('tickrt').handlers and not logging.getLogger().handlers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_m_tickrt() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tickrt", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tickrt ")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tickrt bun", "bundle"),
        ("tickrt run --mod", "--model"),
        ("tickrt run --model see", "seed_lstm"),
        ("tickrt spec show li", "light"),
        ("tickrt build --precision fp1", "fp16"),
    ],
)
def test_the_shell_completes(line: str, offered: str) -> None:
    environment = {
        **os.environ,
        "_TICKRT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tickrt"], capture_output=True, text=True, env=environment
    )
    assert offered in done.stdout.split(), done.stderr
