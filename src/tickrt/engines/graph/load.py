"""Small helpers on ONNX models that all rooms share: read, check, name, sort, type, count.

Entry points: `load_onnx` (a file), `read_bytes` and `parse_onnx` (its two halves), `check_onnx`;
`inputs_of`, `opset_of`, `metadata_of`, `tensor_infos`, `element_types`, `model_facts`,
`model_kind`; `name_nodes`, `sort_nodes`.

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

from tickrt.engines.graph.cells import GATES
from tickrt.engines.graph.interface import ModelFacts, TensorInfo
from tickrt.engines.graph.order import in_order, reads_of
from tickrt.errors import ModelError

__all__ = [
    "FLOATS",
    "check_onnx",
    "element_types",
    "first_line",
    "inputs_of",
    "load_onnx",
    "metadata_of",
    "model_facts",
    "model_kind",
    "name_nodes",
    "opset_of",
    "parameter_count",
    "parse_onnx",
    "producers_of",
    "read_bytes",
    "shape_of",
    "sort_nodes",
    "tensor_infos",
]

FLOATS: Final = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_OTHERS: Final = {
    ".uff": "UFF",
    ".caffemodel": "Caffe",
    ".prototxt": "Caffe",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
}


def read_bytes(path: Path) -> bytes:
    """What is in a model's file.

    Raises:
        ModelError: it cannot be read, or its name says that it is not ONNX.
    """
    if other := _OTHERS.get(path.suffix.lower()):
        raise ModelError(
            f"{path}: a {other} model, and only ONNX is read: export it to ONNX, opset 17, for "
            "example with torch.onnx.export"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def load_onnx(path: Path, content: bytes | None = None) -> tuple[ModelProto, str, bytes]:
    """Read a model, the SHA-256 of its file, and its bytes with all weights inside.

    `content` is the file where it is in memory only; `path` names it then.

    Raises:
        ModelError: not there, or not ONNX.
    """
    data = read_bytes(path) if content is None else content
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
    if not data:
        raise ModelError(f"{where}: the file is empty, expected an ONNX model")
    try:
        model = onnx.load_from_string(data)
        if folder is not None:
            onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:  # protobuf and onnx raise many kinds
        raise ModelError(f"{where}: not a readable ONNX model: {first_line(error)}") from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{where}: not an ONNX model (no nodes or no outputs)")
    return model


def check_onnx(
    model: ModelProto,
    where: str,
    advice: str = "export it again and check it with onnx.checker",
    refusal: type[ModelError] = ModelError,
) -> None:
    """Hold a model to the ONNX specification, with onnx's own checker.

    Raises:
        ModelError: a `refusal`: `where`, what the checker says, and `advice`.
    """
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker has no one base, and protobuf raises its own
        raise refusal(f"{where}: not a valid ONNX model ({first_line(error)}): {advice}") from None


def first_line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators; 0 where the model names none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def metadata_of(model: ModelProto) -> dict[str, str]:
    """The model's metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def inputs_of(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that a caller has to give: those that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


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


def producers_of(model: ModelProto) -> dict[str, NodeProto]:
    """The node that makes each tensor, by the tensor's name."""
    return {name: node for node in model.graph.node for name in node.output}


def sort_nodes(graph: GraphProto) -> None:
    """Bring nodes into the order of their dependencies, in place; stable.

    Raises:
        ModelError: the graph has a cycle, or a node reads a tensor that nobody makes.
    """
    there = {""} | {v.name for v in graph.input} | {t.name for t in graph.initializer}
    there.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        if missing := next((name for name in reads_of(node) if name not in there), ""):
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


def shape_of(value: ValueInfoProto) -> tuple[int | str, ...]:
    """The shape of an input or output; an open axis is its name, ``?`` where it has none."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in dims)


def tensor_infos(values: Iterable[ValueInfoProto]) -> tuple[TensorInfo, ...]:
    """Names, NumPy dtypes and shapes of a graph's inputs or outputs."""
    infos = []
    for value in values:
        kind = value.type.tensor_type.elem_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
        infos.append(TensorInfo(name=value.name, dtype=dtype, shape=shape_of(value)))
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
    producers = producers_of(model)
    kinds = [node.op_type for node in model.graph.node]
    if any(kind in GATES for kind in kinds):
        return "recurrent"
    constants = {t.name for t in model.graph.initializer}
    for node in model.graph.node:
        # Attention is a product of two things that are both computed.
        if node.op_type == "MatMul" and not constants.intersection(node.input):
            makers = [producers[name].op_type for name in node.input if name in producers]
            if "Constant" not in makers and "DequantizeLinear" not in makers:
                return "attention"
    if "Conv" in kinds:
        return "convolution"
    return "mlp" if kinds.count("MatMul") + kinds.count("Gemm") > 1 else "linear"


def model_facts(model: ModelProto, sha256: str, name: str) -> ModelFacts:
    """What the manifest says of the model; its feature hash comes from its metadata."""
    meta = metadata_of(model)
    horizon = meta.get("tickrt.horizon_ns", "")
    return ModelFacts(
        name=name,
        sha256=sha256,
        kind=model_kind(model),
        opset=opset_of(model),
        parameters=parameter_count(model),
        feature_hash=meta.get("tickrt.feature_hash"),
        spec=meta.get("tickrt.spec"),
        horizon_ns=int(horizon) if horizon.isdigit() else None,
    )
