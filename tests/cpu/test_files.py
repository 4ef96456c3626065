"""Files and folders that are there whole or not at all; TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickrt.errors import ConfigError, SpecError
from tickrt.files import new_folder, read_toml, replacing, write_file


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_file(target, [b"old"])
    with replacing(target) as file:
        file.write(b"new")
        file.seek(0)
        file.write(b"N")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"New"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_file(target, [b"old"])
    with pytest.raises(TypeError), replacing(target) as file:
        file.writelines([b"new", "not bytes"])  # type: ignore[list-item]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    write_file(tmp_path / "a", [b"x"], mode=0o444)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with new_folder(target) as new:
        (new / "a").write_bytes(b"a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert list(target.parent.iterdir()) == [target]


def test_the_folder_of_who_was_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as slow:
        (slow / "a").write_bytes(b"slow")
        with new_folder(target) as quick:
            (quick / "a").write_bytes(b"quick")
    assert (target / "a").read_bytes() == b"quick"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_put_there_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.write_bytes(b"a file")
    with pytest.raises(OSError, match="Not a directory"), new_folder(target):
        pass
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half"), new_folder(tmp_path / "folder"):
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = 1\nb = = 2\n", r"not a TOML file: .*\(at line 2, column 5\)"),
        (b"a = [1,\n", "not a TOML file: .*end of document"),
        (b"a = 1\n# \xff\n", r"not a TOML file: not UTF-8 \(at line 2\)"),
        (b"a = " + b"[" * 100_000, "not a TOML file: .*nested too deeply"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_place(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SpecError, match=rf"a\.toml: {says}"):
        read_toml(tmp_path / "a.toml", SpecError)


def test_toml_is_read_as_plain_data(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'a = 1\r\n[b]\r\nc = [true, "\xc3\xa9"]\r\n')
    assert read_toml(tmp_path / "a.toml", ConfigError) == {"a": 1, "b": {"c": [True, "é"]}}
    with pytest.raises(ConfigError, match=r"a\.toml/b: cannot read it: Not a directory"):
        read_toml(tmp_path / "a.toml" / "b", ConfigError)
