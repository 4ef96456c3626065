"""Small helpers on ONNX graphs that building shares: load, name, sort, type, count.

Entry points: `load_onnx`, `name_nodes`, `sort_nodes`, `element_types`, `tensor_infos`,
`model_info`, `model_kind`.

Invariants: functions that return a model return a copy; what they are given stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from tickrt.engines.graph.interface import ModelFacts, TensorInfo
from tickrt.engines.graph.order import in_order, reads_of
from tickrt.errors import ModelError

__all__ = [
    "FLOATS",
    "RECURRENT",
    "element_types",
    "load_onnx",
    "model_info",
    "model_kind",
    "name_nodes",
    "parameter_count",
    "parse_onnx",
    "sort_nodes",
    "tensor_infos",
]

RECURRENT: Final = ("LSTM", "GRU", "RNN")
FLOATS: Final = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_GONE: Final = {".uff": "UFF", ".caffemodel": "Caffe", ".prototxt": "Caffe"}


def load_onnx(path: Path, content: bytes | None = None) -> tuple[ModelProto, str, bytes]:
    """Read a model, the SHA-256 of its file, and its bytes with all weights inside.

    `content` is the file where it is in memory only; `path` names it then.

    Raises:
        ModelError: not there, not ONNX, or a format that today's builders no longer read.
    """
    if gone := _GONE.get(path.suffix.lower()):
        raise ModelError(
            f"{path}: {gone} models cannot be built any more (TensorRT dropped them); export the "
            "model to ONNX, opset 17, for example with torch.onnx.export"
        )
    try:
        data = path.read_bytes() if content is None else content
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    model = parse_onnx(data, str(path), path.parent if content is None else None)
    # Weights that lay outside are inside now; a file that was whole stays the same bytes.
    whole = b"external" not in data or onnx.load_from_string(data) == model
    source = data if whole else model.SerializeToString(deterministic=True)
    return model, hashlib.sha256(data).hexdigest(), source


def parse_onnx(data: bytes, where: str, folder: Path | None = None) -> ModelProto:
    """A model from its bytes; weights that lie outside are read from `folder`.

    Raises:
        ModelError: not ONNX; the message begins with `where`.
    """
    try:
        model = onnx.load_from_string(data)
        if folder is not None:
            onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:  # protobuf and onnx raise many kinds
        raise ModelError(f"{where}: not a readable ONNX model: {_first_line(error)}") from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{where}: not an ONNX model (no nodes or no outputs)")
    return model


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def name_nodes(model: ModelProto) -> ModelProto:
    """A copy in which every node has a name of its own; given names stay where they are unique."""
    copy = ModelProto()
    copy.CopyFrom(model)
    seen: set[str] = set()
    for number, node in enumerate(copy.graph.node):
        base = node.name or f"{node.op_type}_{number}"
        name, again = base, 1
        while name in seen:
            name, again = f"{base}_{again}", again + 1
        seen.add(name)
        node.name = name
    return copy


def sort_nodes(graph: GraphProto) -> None:
    """Bring nodes into the order of their dependencies, in place; stable.

    Raises:
        ModelError: the graph has a cycle, or a node reads a tensor that nobody makes.
    """
    made = {""} | {v.name for v in graph.input} | {t.name for t in graph.initializer}
    made.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        if missing := next((name for name in reads_of(node) if name not in made), ""):
            raise ModelError(f"node {node.name!r} reads {missing!r}, which no node makes")
    done, cycle = in_order(graph.node, reads_of, lambda node: node.output)
    if cycle:
        raise ModelError(f"node {cycle[0].name!r} lies on a cycle, or behind one")
    copies = [NodeProto.FromString(node.SerializeToString()) for node in done]
    del graph.node[:]
    graph.node.extend(copies)


def element_types(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor that shape inference can tell."""
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _shape(value: ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in dims)


def tensor_infos(values: Iterable[ValueInfoProto]) -> tuple[TensorInfo, ...]:
    """Names, NumPy dtypes and shapes of a graph's inputs or outputs."""
    infos = []
    for value in values:
        kind = value.type.tensor_type.elem_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
        infos.append(TensorInfo(name=value.name, dtype=dtype, shape=_shape(value)))
    return tuple(infos)


def parameter_count(model: ModelProto) -> int:
    """How many floating-point numbers the model's constants hold."""
    return sum(
        int(np.prod(t.dims, dtype=np.int64))
        for t in model.graph.initializer
        if t.data_type in FLOATS
    )


def model_kind(model: ModelProto) -> str:
    """``recurrent``, ``attention``, ``convolution``, ``mlp`` or ``linear``, from its operators."""
    made = {name: node for node in model.graph.node for name in node.output}
    kinds = [node.op_type for node in model.graph.node]
    if any(kind in RECURRENT for kind in kinds):
        return "recurrent"
    constants = {t.name for t in model.graph.initializer}
    for node in model.graph.node:
        # Attention is a product of two things that are both computed.
        if node.op_type == "MatMul" and not constants.intersection(node.input):
            makers = [made[name].op_type for name in node.input if name in made]
            if "Constant" not in makers and "DequantizeLinear" not in makers:
                return "attention"
    if "Conv" in kinds:
        return "convolution"
    return "mlp" if kinds.count("MatMul") + kinds.count("Gemm") > 1 else "linear"


def model_info(model: ModelProto, sha256: str, name: str) -> ModelFacts:
    """What the manifest says of the model; its feature hash comes from its metadata."""
    meta = {entry.key: entry.value for entry in model.metadata_props}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    horizon = meta.get("tickrt.horizon_ns", "")
    return ModelFacts(
        name=name,
        sha256=sha256,
        kind=model_kind(model),
        opset=opset,
        parameters=parameter_count(model),
        feature_hash=meta.get("tickrt.feature_hash"),
        spec=meta.get("tickrt.spec"),
        horizon_ns=int(horizon) if horizon.isdigit() else None,
    )
