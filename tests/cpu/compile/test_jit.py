"""Where compiled code is cached, and that Numba's own settings stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from tickrt.compile.jit import JIT, c_function, compiled_dir, kernel


def one_more(x: int) -> int:
    return x + 1


def two_more(x: int) -> int:
    return x + 2


@pytest.mark.skipif(not JIT, reason="nothing is compiled under NUMBA_DISABLE_JIT")
@pytest.mark.parametrize(
    "make", [lambda: kernel(one_more)(1), lambda: c_function(two_more, 1).address]
)
def test_compiled_code_is_cached_in_our_folder(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickrt.compile.jit.compiled_folder", lambda: tmp_path)
    before = numba.config.CACHE_DIR
    assert make()
    assert compiled_dir().parent == tmp_path
    assert list(compiled_dir().rglob("*.nbi"))
    assert before == numba.config.CACHE_DIR


@pytest.mark.skipif(not JIT, reason="nothing is compiled under NUMBA_DISABLE_JIT")
def test_code_of_others_is_cached_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "theirs"))
    monkeypatch.setattr("tickrt.compile.jit.compiled_folder", lambda: tmp_path / "ours")
    kernel(one_more)
    assert numba.njit(cache=True)(two_more)(1) == 3
    assert list((tmp_path / "theirs").rglob("*.nbi"))
    assert not list((tmp_path / "ours").rglob("*.nbi"))
