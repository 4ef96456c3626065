"""The documentation: it builds without a warning, and what its pages show runs as it is shown."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

import tickrt as tr
from helpers.pages import DOCS, ROOT, files, script

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: tickrt[train]"
)
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocstrings") is None, reason="mkdocs is not installed: tickrt[docs]"
)


def mkdocs(*options: str, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """``mkdocs build --strict``."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), *options]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "true"}
    return subprocess.run(command, capture_output=True, text=True, env=env)


@needs_mkdocs
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = mkdocs("-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api.html").read_text(encoding="utf-8")
    described = set(re.findall(r'<h\d id="tickrt\.(\w+)"', page))
    assert described == {name for name in tr.__all__ if not name.startswith("__")}
    assert not re.findall(r'(?:src|href)="https?://(?!squidfunk)', page)  # nothing is fetched


@needs_mkdocs
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# x\n\n[gone](gone.md)\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")
    settings = text[0] + "\n" + text[1][text[1].index("\nvalidation:") :]
    (tmp_path / "mkdocs.yml").write_text(settings.replace("[src]", f"[{ROOT / 'src'}]"))
    done = mkdocs("-d", str(tmp_path / "site"), config=tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "gone.md" in done.stderr


def run(folder: Path, *command: str) -> str:
    """What a Python command printed."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(page: str, folder: Path) -> Path:
    """The files of a page, and its other blocks as one script, in `folder`."""
    for name, text in files(DOCS / page).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "page.py").write_text(script(DOCS / page), encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", ["index.md", "api.md", "../README.md"])
def test_short_pages_run(page: str, tmp_path: Path) -> None:
    run(written(page, tmp_path), "page.py")
    assert (tmp_path / "sim.npz").is_file()


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    out = run(written("tutorial-train-your-own.md", tmp_path), "page.py")
    accuracy, flat = map(float, re.findall(r"accuracy ([\d.]+), always flat ([\d.]+)", out)[0])
    assert accuracy > flat + 0.02
    share = float(re.findall(r"([\d.]+)% of the multiply-adds", out)[0])
    assert share < 5
    assert int(re.findall(r"(\d+) orders, tick to order", out)[0]) > 100
    assert int(re.findall(r"^(\d+) trades", out, re.M)[0]) > 100


def both(folder: Path, other: str) -> tuple[str, str]:
    """What session.py and the other process printed; the other starts when the session is ready."""
    name = f"docs-{secrets.token_hex(4)}"
    command = [sys.executable, "session.py", name]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        try:
            assert session.stdout.readline() == "ready\n"
            said = run(folder, other, name)
            out = session.stdout.read()
        finally:
            session.kill()
    return out, said


def code_lines(text: str) -> int:
    """Lines that are not blank and not a comment."""
    return sum(bool(line.strip()) and not line.startswith("#") for line in text.splitlines())


def test_a_feed_in_thirty_lines(tmp_path: Path) -> None:
    written("howto-feed.md", tmp_path)
    assert code_lines((tmp_path / "feed.py").read_text()) <= 30
    out, _ = both(tmp_path, "feed.py")
    assert out == "2061 events, 2001 rows, 1952 signals\n"


def test_a_gateway_in_thirty_lines(tmp_path: Path) -> None:
    written("howto-gateway.md", tmp_path)
    assert code_lines((tmp_path / "venue.py").read_text()) <= 30
    assert code_lines((tmp_path / "trade.py").read_text()) <= 30
    events, meta = tr.simulate(seconds=20, seed=3)
    tr.save_events(tmp_path / "session.npz", events, meta)
    said = run(tmp_path, "trade.py")
    orders, fills = map(int, re.findall(r"(\d+) orders, (\d+) fills", said)[0])
    assert orders >= fills > 0
    assert "state" in said


def test_the_host_of_the_page_answers(tmp_path: Path) -> None:
    said = run(written("howto-engine-hosts.md", tmp_path), "page.py")
    assert re.fullmatch(r"3\.\d+\.\S+ 0\.0 0\n", said)
