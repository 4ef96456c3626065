"""Engines of one session that share a GPU: `backends.prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.sessions import config, market_file
from tickrt import backends
from tickrt.config import SessionConfig
from tickrt.errors import ConfigError
from tickrt.runtime.backends import resident
from tickrt.runtime.session import Session


def settings(tmp_path: Path, **more: Any) -> SessionConfig:
    return SessionConfig(data=(tmp_path / "data.npz",), backend="resident", **more)


def test_engines_that_share_nothing_are_loaded_one_by_one(tmp_path: Path) -> None:
    loader = backends.prepare("null", 3, settings(tmp_path))
    engine = loader.load(None, None, settings(tmp_path))
    assert engine.describe()["backend"] == "null"
    loader.close()


def test_several_on_one_gpu_need_mps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"2 engines on one GPU need MPS.*--allow-time-slicing"):
        resident.prepare(2, settings(tmp_path))
    resident.prepare(1, settings(tmp_path)).close()
    resident.prepare(2, settings(tmp_path, allow_time_slicing=True)).close()


def test_what_a_backend_shares_is_closed_when_an_engine_cannot_be_loaded(tmp_path: Path) -> None:
    closed = []

    class Loader:
        def load(self, *_: Any) -> Any:
            raise ConfigError("no such engine")

        def close(self) -> None:
            closed.append(True)

    class Shares:
        @staticmethod
        def load(*_: Any) -> Any:
            raise AssertionError

        @staticmethod
        def prepare(engines: int, _: Any) -> Loader:
            assert engines == 1
            return Loader()

    backends.register("shares", Shares)
    try:
        with pytest.raises(ConfigError, match="no such engine"):
            Session(config(tmp_path, market_file(tmp_path / "d.npz", 20), backend="shares"))
    finally:
        backends._known.pop("shares")
    assert closed == [True]
