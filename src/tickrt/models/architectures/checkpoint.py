"""Tensors out of a PyTorch checkpoint, without PyTorch and without running what is in it.

A checkpoint is a zip of a pickle and raw storages. The unpickler here knows how to make
dictionaries and tensors, and nothing else: any other class that the pickle names becomes an inert
stand-in, so no code of the file's choosing can run.

Entry point: `load_state_dict`. Known limit: contiguous storages of float32, float64 and int64.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tickrt.errors import ModelError

__all__ = ["load_state_dict"]

_STORAGES = {"FloatStorage": np.float32, "DoubleStorage": np.float64, "LongStorage": np.int64}


class _Inert(dict[Any, Any]):
    """Stands for every object that is not a tensor; takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore an item of a list subclass."""

    def extend(self, items: Any) -> None:
        """Ignore items of a list subclass."""


def _tensor(
    storage: npt.NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> npt.NDArray[Any]:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or last >= max(len(storage), 1) or any(s < 0 for s in stride):
        raise ModelError("a tensor of the checkpoint reaches beyond its storage")
    steps = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


class _Reader(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return name
        return _Inert

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        _, kind, key = pid[:3]
        if kind not in _STORAGES:
            raise ModelError(f"a storage of kind {kind!r} in the checkpoint")
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), _STORAGES[kind])


def load_state_dict(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The ``state_dict`` of a checkpoint (or the whole of it, where it is one) as arrays.

    Raises:
        ModelError: the file is not a PyTorch zip checkpoint, or holds no tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ModelError(f"{path}: not a PyTorch checkpoint (no data.pkl)")
            with archive.open(pickles[0]) as stream:
                whole = _Reader(stream, archive, pickles[0].rpartition("/")[0]).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, OSError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from error
    state = whole.get("state_dict", whole) if isinstance(whole, dict) else {}
    tensors = {str(k): v for k, v in state.items() if isinstance(v, np.ndarray)}
    if not tensors:
        raise ModelError(f"{path}: no tensors in the checkpoint")
    return tensors
