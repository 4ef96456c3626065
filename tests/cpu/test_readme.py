"""What the documentation says is true: commands run, links lead somewhere, code works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from helpers.pages import ROOT, blocks
from helpers.sessions import T, config, market_file
from tickrt import backends
from tickrt.cli import main
from tickrt.config import load_config
from tickrt.feature.spec import load_spec
from tickrt.runtime.session import Session

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.timeout(900)
def test_readme_commands_run(tmp_path: Path) -> None:
    scripts = blocks(ROOT / "README.md", "sh", marked=True)
    assert len(scripts) == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for script in scripts:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert done.returncode == 0, f"{script}\n{done.stderr}"
    for part in ("run", "backtest", "run-latest", "backtest-latest"):
        assert (tmp_path / "out" / part / "report.html").is_file()


def commands() -> list[str]:
    """Every ``tickrt …`` line that the documentation shows."""
    lines = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            lines += [line.strip() for line in block.splitlines() if line.startswith("tickrt ")]
    return sorted(set(lines))


@pytest.mark.parametrize("line", commands())
def test_commands_and_options_shown_exist(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    words = shlex.split(line, comments=True)[1:]
    command = []
    while words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        command.append(words.pop(0))
    given = [word.split("=")[0] for word in words if word.startswith("-")]
    groups = ("data", "bench", "registry", "keys", "bundle", "spec", "model", "config")
    command = command[:2] if command and command[0] in groups else command[:1]
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    for option in given:
        assert re.search(rf"(?<!\S){re.escape(option)}(?!\S)", text), f"{line}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(
        r'src(?:set)?="([^"]+)"', text
    )
    local = [t for t in targets if not t.startswith(("http://", "https://"))]
    assert not [t for t in local if not (page.parent / t).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_named_in_backticks_exist(page: Path) -> None:
    """``docs/x.md``, ``tests/…/y.py``, ``strategy/kernels.py``: they are still there."""
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|toml|json))`", page.read_text("utf-8"))
    places = (ROOT, ROOT / "src", ROOT / "src" / "tickrt")
    assert not [n for n in named if not any((place / n).exists() for place in places)]


def test_the_feature_column_of_the_howto_works(tmp_path: Path) -> None:
    page = ROOT / "docs" / "howto-feature-column.md"
    (tmp_path / "my_columns.py").write_text(blocks(page, "python")[0])
    (tmp_path / "mine.toml").write_text(blocks(page, "toml")[0])
    spec = load_spec(tmp_path / "mine.toml")
    assert spec.width == 41
    assert spec.window == 50


def test_the_session_file_of_the_howto_works(tmp_path: Path) -> None:
    page = ROOT / "docs" / "howto-session.md"
    (tmp_path / "session.toml").write_text(blocks(page, "toml")[0])
    loaded = load_config(tmp_path / "session.toml")
    assert loaded.data == (tmp_path / "session.npz",)
    assert [s.name for s in loaded.strategies] == ["light taker", "light maker"]
    done = subprocess.run(
        [sys.executable, "-c", blocks(page, "python")[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "threads = 2" in done.stdout


def test_the_backend_of_the_howto_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "howto-backend.md"
    (tmp_path / "momentum.py").write_text(blocks(page, "python")[0])
    (group,) = tomllib.loads(blocks(page, "toml")[0])["project"]["entry-points"]
    assert group == backends.GROUP
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(backends, "_known", dict(backends._known))
    backends.register("momentum", "momentum")
    data = market_file(tmp_path / "m.npz", 60)
    with Session(config(tmp_path, data, backend="momentum")) as session:
        report = session.run()
        signals = session.signals()
    assert report.faults == 0
    assert len(signals) == 60 - (T - 1)  # a signal for every full window
    assert set(signals["p_up"]) == {np.float32(0.2), np.float32(0.7)}


def test_the_two_commands_of_the_first_screen_are_targets_of_the_makefile() -> None:
    first = blocks(ROOT / "README.md", "sh")[0]
    targets = re.findall(r"^make (\w+)", first, re.M)
    assert len(targets) == 2
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_figures_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's table is what the JSON files say: run ``python -m benchmarks._readme``."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import _readme

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split(_readme.START)[1].split(_readme.END)[0]
    assert block == _readme.table()
