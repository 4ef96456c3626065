"""What every room of `engines` says of a model: tensors, facts, inputs and outputs of a run.

Entry points: `TensorInfo`, `ModelFacts` (parts of the manifest, made here), `Feed`, `Run`.

Invariants: frozen, and exact as JSON (`Part`), since the manifest holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

__all__ = ["Array", "Feed", "ModelFacts", "Part", "Run", "Shape", "TensorInfo"]

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]  # arrays by the name of the tensor
Run = Callable[[Feed], Feed]  # outputs of inputs
Shape = tuple[int | str, ...]


class Part(BaseModel):
    """A part of the manifest: frozen, nothing unknown in it, every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorInfo(Part):
    """A named input or output: dtype as NumPy names it; a dynamic axis is its name."""

    name: str
    dtype: str
    shape: Shape


class ModelFacts(Part):
    """What is known of an ONNX model: its digest, kind, size, and the features it was made for."""

    name: str
    sha256: str
    kind: str = "unknown"
    opset: int = 17
    parameters: int = 0
    feature_hash: str | None = None
    spec: str | None = None
    horizon_ns: int | None = None
