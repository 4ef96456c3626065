"""The files of a machine, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickrt.observe.doctor.tree import Tree, cores_of, cores_text


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cores_are_read_as_they_are_written(cores: set[int]) -> None:
    text = cores_text(cores)
    assert cores_of(text) == cores
    assert " " not in text


@pytest.mark.parametrize(
    ("text", "cores"),
    [("", set()), ("(null)", set()), ("0-2,8\n", {0, 1, 2, 8}), ("domain,managed_irq,3", {3})],
)
def test_what_the_kernel_writes(text: str, cores: set[int]) -> None:
    assert cores_of(text) == cores


def test_what_cannot_be_read_is_named_as_on_the_machine(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Tree(tmp_path).text("/proc/nothing")
    assert caught.value.filename == "/proc/nothing"
    (tmp_path / "proc").mkdir()
    with pytest.raises(IsADirectoryError):
        Tree(tmp_path).text("/proc")
    assert Tree(tmp_path).maybe("/proc") == ""


def test_numbers_in_paths_are_in_their_order(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        (tmp_path / f"state{n}").mkdir()
    assert Tree(tmp_path).find("/state*") == ["/state1", "/state2", "/state10"]


def test_programs_are_those_that_can_be_run(tmp_path: Path) -> None:
    tree = Tree(tmp_path, programs=("/opt/gcc/bin",))
    for folder in ("opt/gcc/bin", "usr/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "gcc").touch()
    assert tree.program("cc", "gcc") is None
    for folder in ("usr/bin", "opt/gcc/bin"):
        (tmp_path / folder / "gcc").chmod(0o755)
        assert tree.program("cc", "gcc") == f"/{folder}/gcc"


def test_a_library_is_found_where_its_architecture_puts_it(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert tree.library("libnvrtc.so*") is None
    folder = tmp_path / "usr/local/cuda/targets/sbsa-linux/lib"
    folder.mkdir(parents=True)
    (folder / "libnvrtc.so.13").touch()
    assert tree.library("libnvrtc.so*") == "/usr/local/cuda/targets/sbsa-linux/lib/libnvrtc.so.13"
