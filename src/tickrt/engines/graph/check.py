"""Is this ONNX file a model that the loop can run on this feature spec?

Entry points: `read_model(path)` (the file and its interface), `loop_model` (the same of bytes),
`check_spec(model, spec)` (does it fit the spec). Both sides of every mismatch are named in the
error.

The contract: one input float32 [batch, T, F]; one output float32 [batch, 3] with the probabilities
of (down, flat, up); metadata ``tickrt.feature_hash`` with the hash of the spec it was trained on.
A model without that entry is accepted only with `allow_unsigned_features`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from tickrt.engines.graph.load import (
    check_onnx,
    inputs_of,
    metadata_of,
    opset_of,
    parse_onnx,
    read_bytes,
    shape_of,
)
from tickrt.errors import FeatureMismatchError, ModelError

__all__ = ["ONNX", "LoopModel", "SpecLike", "check_spec", "loop_model", "read_model"]

ONNX = "onnx"  # the format that every machine can run
_OUTPUTS = ("down", "flat", "up")
_MIN_OPSET = 13


class SpecLike(Protocol):
    """What is needed of a feature spec (`feature.spec.FeatureSpec` has it)."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def width(self) -> int: ...


@dataclass(frozen=True)
class LoopModel:
    """A checked model and its interface; `format` is that of its engines: ``onnx``, or that of the
    backend which built them."""

    name: str  # the file's, for messages
    content: bytes  # the serialised model
    sha256: str  # of `content`
    input: str
    output: str
    window: int  # T
    width: int  # F
    n_outputs: int
    metadata: dict[str, str]
    format: str = ONNX


def _float32(path: str, what: str, value: onnx.ValueInfoProto) -> None:
    kind = value.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind)
        raise ModelError(
            f"{path}: {what} {value.name!r} has type {name}, expected FLOAT: "
            "export the model in float32; tickrt build lowers the precision inside"
        )


def read_model(path: str | Path) -> LoopModel:
    """Read and check an ONNX file.

    Raises:
        ModelError: not a readable, valid ONNX model of the expected interface.
    """
    return loop_model(read_bytes(Path(path)), str(path))


def loop_model(content: bytes, name: str) -> LoopModel:
    """Check a serialised ONNX model; `name` stands for it in messages.

    Raises:
        ModelError: not a valid ONNX model of the expected interface.
    """
    model = parse_onnx(content, name)
    check_onnx(model, name)
    opset = opset_of(model)
    if opset < _MIN_OPSET:
        raise ModelError(f"{name}: opset {opset}, expected {_MIN_OPSET} or later: export with 17")
    inputs = inputs_of(model)
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{name}: expected one input [batch, T, F] and one output [batch, 3], got inputs "
            f"{[v.name for v in inputs]} and outputs {[v.name for v in outputs]}"
        )
    _float32(name, "input", inputs[0])
    _float32(name, "output", outputs[0])
    shape, out = list(shape_of(inputs[0])), list(shape_of(outputs[0]))
    if len(shape) != 3 or not all(isinstance(d, int) and d > 0 for d in shape[1:]):
        raise ModelError(
            f"{name}: input {inputs[0].name!r} has shape {shape}, expected [batch, T, F] with a "
            "fixed number of rows T and features F"
        )
    if shape[0] == 0 or (isinstance(shape[0], int) and shape[0] != 1):
        raise ModelError(
            f"{name}: input {inputs[0].name!r} has the fixed batch {shape[0]}, expected 1 or a "
            "dynamic dimension"
        )
    if not out or out[-1] != len(_OUTPUTS):
        raise ModelError(
            f"{name}: output {outputs[0].name!r} has shape {out}, expected [batch, 3] with the "
            f"probabilities of {', '.join(_OUTPUTS)}"
        )
    return LoopModel(
        name=Path(name).name,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        input=inputs[0].name,
        output=outputs[0].name,
        window=int(shape[1]),
        width=int(shape[2]),
        n_outputs=len(_OUTPUTS),
        metadata=metadata_of(model),
    )


def check_spec(model: LoopModel, spec: SpecLike, *, allow_unsigned_features: bool = False) -> None:
    """Refuse a model that was not made for `spec`.

    Raises:
        FeatureMismatchError: other window, width or feature hash; both sides are named.
    """
    if (model.window, model.width) != (spec.window, spec.width):
        raise FeatureMismatchError(
            f"{model.name}: input {model.input!r} is [batch, {model.window}, {model.width}], but "
            f"feature spec {spec.name!r} makes windows of {spec.window} rows × {spec.width} "
            "features: choose the spec that the model was trained on (--spec)"
        )
    trained_on = model.metadata.get("tickrt.feature_hash")
    if trained_on is None and not allow_unsigned_features:
        raise FeatureMismatchError(
            f"{model.name}: no metadata 'tickrt.feature_hash', feature spec {spec.name!r} has "
            f"{spec.hash}: store that hash when exporting if the model was trained on this spec"
        )
    if trained_on is not None and trained_on != spec.hash:
        raise FeatureMismatchError(
            f"{model.name}: trained on feature hash {trained_on}, but feature spec {spec.name!r} "
            f"has {spec.hash}: run it with the spec it was trained on, or train it again"
        )
