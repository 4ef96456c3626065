"""Progress goes to a terminal's stderr, and nowhere else."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from tickrt.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO) -> io.StringIO:
    """Make `screen` stderr, and show even what is over at once. (Not a fixture: pytest sets stderr
    anew between a fixture and its test.)"""
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    return screen


def test_a_bar_shows_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, Terminal())
    with progress.bar("converting") as report:
        report(1, 4)
        report(2, 4)
    assert "converting" in screen.getvalue()
    assert "50 %" in screen.getvalue()


def test_work_of_unknown_length_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, Terminal())
    with progress.working("compiling"):
        deadline = time.monotonic() + 10
        while "compiling" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "compiling" in screen.getvalue()


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, Terminal())
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 60.0)
    with progress.bar("a") as report, progress.working("b"):
        report(1, 2)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("quiet", "kind"), [(True, Terminal), (False, io.StringIO)])
def test_nothing_is_shown_when_quiet_or_without_a_terminal(
    quiet: bool, kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch, kind())
    with progress.bar("a", quiet) as report, progress.working("b", quiet):
        progress.share(report)(0.5)
    assert screen.getvalue() == ""


def test_an_estimate_fills_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, Terminal())
    with progress.working("compiling", about_s=0.001):
        deadline = time.monotonic() + 10
        while "95 %" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "95 %" in screen.getvalue()


def test_the_first_compilation_is_estimated_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tickrt.compile import jit

    monkeypatch.setattr(jit, "JIT", True)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    jit.compiled_dir().mkdir()  # as compiling does
    run, backtest = progress.first_compile("run"), progress.first_compile("backtest")
    assert 0 < run.about_s < backtest.about_s
    assert f"about {run.about_s:.0f} s" in run.note
    run.done(1.0)
    assert progress.first_compile("run").about_s == 0
    assert progress.first_compile("run").note == ""
    later = progress.first_compile("backtest")
    assert later.about_s == pytest.approx(backtest.about_s - run.about_s)
    later.done(1.0)
    assert progress.first_compile("backtest").about_s == 0


def test_nothing_is_estimated_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tickrt.compile import jit

    monkeypatch.setattr(jit, "JIT", False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert progress.first_compile("run").about_s == 0
