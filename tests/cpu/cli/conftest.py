"""``tickrt`` as a user types it, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.commands import Result
from helpers.sessions import market_file, tiny_model, tiny_spec
from tickrt.cli import log, main

Tickrt = Callable[..., Result]


@pytest.fixture
def tickrt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Tickrt]:
    """Runs ``tickrt`` in an empty folder, on a terminal of 160 columns, without our environment."""
    for name in ("TICKRT_TRUST", "TICKRT_KEY", "TICKRT_SIGN", "TICKRT_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERMINAL_WIDTH", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        code = main([str(a) for a in arguments])
        return Result(code, *capsys.readouterr())

    yield call
    log.set_up(0, as_json=False)


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an event file, a spec and a model that fits it."""
    folder = tmp_path_factory.mktemp("session")
    market_file(folder / "btc.npz", 300)
    spec = tiny_spec(folder)
    tiny_model(spec, folder / "tiny.onnx")
    return folder
