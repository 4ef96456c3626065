"""The programs in the how-to pages run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.simulation.simulator import simulate

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def write_programs(page: str, folder: Path) -> dict[str, Path]:
    """The programs of a page, as files in `folder`."""
    written = {}
    for name, text in FILE.findall((DOCS / page).read_text(encoding="utf-8")):
        written[name] = folder / name
        written[name].write_text(text, encoding="utf-8")
    return written


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    events, _ = simulate(seconds=20.0, seed=3)
    meta = {"instrument": KNOWN["BTCUSD_PERP"].to_dict()}
    return save_events(tmp_path / "session.npz", events, meta)


def run(program: Path) -> str:
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_gateway_in_thirty_lines(session_file: Path, tmp_path: Path) -> None:
    programs = write_programs("howto-gateway.md", tmp_path)
    assert all(len(p.read_text().splitlines()) <= 30 for p in programs.values())
    said = run(programs["trade.py"])
    orders, fills = map(int, re.findall(r"(\d+) orders, (\d+) fills", said)[0])
    assert orders >= fills > 0
    assert "state" in said
