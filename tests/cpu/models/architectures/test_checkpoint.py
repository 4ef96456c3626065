"""Reading tensors out of a checkpoint runs nothing of what is in it."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickrt.errors import ModelError
from tickrt.models.architectures.checkpoint import load_state_dict


class Storage:
    """Pickles as PyTorch's persistent reference to a storage."""

    def __init__(self, key: str) -> None:
        self.key = key


class Tensor:
    def __init__(self, key: str, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.args = (Storage(key), 0, size, stride, False, None)

    def __reduce__(self) -> Any:
        return rebuild, self.args


def rebuild(*args: Any) -> None:
    """Stands for torch._utils._rebuild_tensor_v2 while the test writes its file."""


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


class Writer(pickle._Pickler):  # type: ignore[misc]
    def persistent_id(self, item: Any) -> Any:
        if isinstance(item, Storage):
            return "storage", FloatStorage, item.key, "cpu", 6
        return None

    def save_global(self, item: Any, name: str | None = None) -> None:
        renamed = {
            rebuild: b"torch._utils\n_rebuild_tensor_v2",
            FloatStorage: b"torch\nFloatStorage",
        }
        if item in renamed:
            self.write(b"c" + renamed[item] + b"\n")
        else:
            super().save_global(item, name)


Writer.dispatch = {**pickle._Pickler.dispatch}
Writer.dispatch[type(rebuild)] = Writer.save_global
Writer.dispatch[type] = Writer.save_global


class FloatStorage:
    pass


def checkpoint(path: Path, content: dict[str, Any], values: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as stream:
            Writer(stream, protocol=2).dump(content)
        archive.writestr("archive/data/0", values.tobytes())
    return path


VALUES = np.arange(6, dtype=np.float32)


def test_tensors_come_back_with_their_strides(tmp_path: Path) -> None:
    content = {"state_dict": {"w": Tensor("0", (2, 3), (3, 1)), "t": Tensor("0", (3, 2), (1, 3))}}
    state = load_state_dict(checkpoint(tmp_path / "a.pt", content, VALUES))
    np.testing.assert_array_equal(state["w"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(state["t"], VALUES.reshape(2, 3).T)


def test_nothing_in_the_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"w": Tensor("0", (6,), (1,))}, "callbacks": Evil()}
    state = load_state_dict(checkpoint(tmp_path / "a.pt", content, VALUES))
    assert list(state) == ["w"]
    assert not (tmp_path / "pwned").exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    content = {"w": Tensor("0", (7,), (1,))}
    with pytest.raises(ModelError, match="beyond its storage"):
        load_state_dict(checkpoint(tmp_path / "a.pt", content, VALUES))


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    text = tmp_path / "a.pt"
    text.write_text("hello")
    with pytest.raises(ModelError, match="cannot be read"):
        load_state_dict(text)
    with pytest.raises(ModelError, match="no tensors"):
        load_state_dict(checkpoint(tmp_path / "b.pt", {"state_dict": {}}, VALUES))
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ModelError, match=r"no data\.pkl"):
        load_state_dict(tmp_path / "c.pt")
