"""Where the environment says that things are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickrt import environment


def test_folders_follow_their_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TICKRT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_folder("split") == tmp_path / ".cache" / "tickrt" / "split"
    assert environment.compiled_folder() == tmp_path / ".cache" / "tickrt" / "numba"
    assert environment.data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert environment.compiled_folder() == Path("/x/tickrt/numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/n")
    assert environment.compiled_folder() == Path("/n")
    assert environment.cache_folder("timing") == Path("/x/tickrt/timing")
    monkeypatch.setenv("TICKRT_DATA", "/d")
    assert environment.data_folder(tmp_path) == Path("/d")


def test_a_variable_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.variable("DESK_KEY_OF_A_TEST") == ""
    monkeypatch.setenv("DESK_KEY_OF_A_TEST", "secret")
    assert environment.variable("DESK_KEY_OF_A_TEST") == "secret"
