"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tickrt.environment import data_folder

ROOT = Path(__file__).resolve().parent.parent
# Processes that tests start find `helpers` too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")])
)


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The recorded market data: `TICKRT_DATA`, else `../shared/data`; skips without it."""
    folder = data_folder(ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"recorded market data is not here: set TICKRT_DATA (looked in {folder})")
    return folder
