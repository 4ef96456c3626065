"""From an ONNX model to a `Graph`: shapes found, constants folded, operators in one spelling.

Entry point: `prepare`. Whatever depends on no input is folded; what depends on the batch size alone
is marked; the rest is spelled by `canonicalize`.

Known limits: opset 13 or newer after conversion, one window input, no control flow.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import helper, numpy_helper

from tickrt.engines.graph.cells import GATES
from tickrt.engines.graph.load import inputs_of, metadata_of, opset_of
from tickrt.engines.split.canonicalize import canonicalize, unmerge
from tickrt.engines.split.graph import Array, Graph, Node, Shape, in_order, probe
from tickrt.errors import SplitError

__all__ = ["find_input", "prepare"]

_MIN_OPSET = 13
_TARGET_OPSET = 17


def prepare(
    model: onnx.ModelProto,
    *,
    input: str | None = None,
    time_axis: int | None = None,
    window: int | None = None,
) -> Graph:
    """Read `model` into a `Graph`.

    Args:
        model: windowed model, window input [batch, T, F] or [batch, 1, T, F].
        input: name of the window input; default: the only input.
        time_axis: axis of T in it; default 1 for rank 3, 2 for rank 4.
        window: T, needed only where the model leaves it open.

    Raises:
        SplitError: the model has what the split cannot look into; the message says what.
    """
    model = _with_first_outputs(_modern(model))
    info = find_input(model, input)
    shape, axis = _input_shape(info, time_axis, window)
    values, shapes = _measure(model, info, shape)
    graph = _read(model, info.name, axis, values, shapes)
    for step in (_fold, canonicalize, _drop_aliases, unmerge):
        step(graph)
    return graph


def _with_first_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A node is known by its first output: it gets a name where it is left out."""
    if all(node.output[0] for node in model.graph.node if node.output):
        return model
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for index, node in enumerate(named.graph.node):
        if node.output and not node.output[0]:
            node.output[0] = f"{node.name or node.op_type}_{index}/left_out"
    return named


def find_input(model: onnx.ModelProto, name: str | None) -> onnx.ValueInfoProto:
    """The window input: `name`, or the only input that is not an initialiser."""
    inputs = inputs_of(model)
    if name is not None and name not in [entry.name for entry in inputs]:
        raise SplitError(f"no input named {name!r}: the model has {[i.name for i in inputs]}")
    if len(inputs) != 1:
        names = [entry.name for entry in inputs]
        raise SplitError(f"the model has {len(inputs)} inputs {names}; the split knows one window")
    return inputs[0]


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    if len(model.functions):
        model = onnx.inliner.inline_local_functions(model)
    for node in model.graph.node:
        if any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for a in node.attribute
        ):
            raise SplitError(
                f"{node.op_type} {node.name!r} has a sub-graph: control flow is not split"
            )
    if opset_of(model) < _MIN_OPSET:
        model = onnx.version_converter.convert_version(model, _TARGET_OPSET)
    return model


def _input_shape(
    info: onnx.ValueInfoProto, time_axis: int | None, window: int | None
) -> tuple[list[int], int]:
    """Shape with −1 for an open batch, and the time axis."""
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in info.type.tensor_type.shape.dim]
    if time_axis is None:
        if len(dims) not in (3, 4):
            raise SplitError(
                f"input {info.name!r} has {len(dims)} dimensions: expected [batch, T, F] or "
                "[batch, 1, T, F]; give `time_axis` where it is laid out otherwise"
            )
        time_axis = len(dims) - 2
    if not 1 <= time_axis < len(dims):
        raise SplitError(f"time_axis {time_axis}: expected 1…{len(dims) - 1}")
    if dims[time_axis] < 0:
        if window is None:
            raise SplitError(f"input {info.name!r} has no fixed window length: give `window`")
        dims[time_axis] = window
    if window is not None and dims[time_axis] != window:
        raise SplitError(f"window {window}: the model was made for {dims[time_axis]} rows")
    if dims[time_axis] < 2:
        raise SplitError("a window of one row: nothing is known before the newest row")
    if any(d < 0 for d in dims[1:]):
        raise SplitError(f"input {info.name!r} has an open dimension besides the batch: {dims}")
    return dims, time_axis


def _measure(
    model: onnx.ModelProto, info: onnx.ValueInfoProto, shape: list[int]
) -> tuple[tuple[dict[str, Array], dict[str, Array]], dict[str, Shape]]:
    """Values of every tensor at two batch sizes (one where it is fixed), and the shapes."""
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)

    def feed(batch: int) -> dict[str, Array]:
        full = [batch if d < 0 else d for d in shape]
        return {info.name: rng.standard_normal(full).astype(dtype)}

    if shape[0] >= 0:
        values = {**feed(0), **probe(model, feed(0))}
        return (values, values), {name: tuple(v.shape) for name, v in values.items()}
    small, large = feed(2), feed(3)
    first = {**small, **probe(model, small)}
    second = {**large, **probe(model, large)}
    shapes = {name: _shape(name, value, second[name]) for name, value in first.items()}
    return (first, second), shapes


def _shape(name: str, two: Array, three: Array) -> Shape:
    if two.ndim != three.ndim:
        raise SplitError(f"tensor {name!r} has a rank that depends on the batch")
    dims: list[int] = []
    for a, b in zip(two.shape, three.shape, strict=True):
        if a == b:
            dims.append(a)
        elif 3 * a == 2 * b:
            dims.append(-(b - a))
        else:
            raise SplitError(f"tensor {name!r} has a shape that depends on the data")
    return tuple(dims)


def _read(
    model: onnx.ModelProto,
    window_input: str,
    axis: int,
    values: tuple[dict[str, Array], dict[str, Array]],
    shapes: dict[str, Shape],
) -> Graph:
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [
        Node(
            node.op_type,
            list(node.input),
            list(node.output),
            {a.name: helper.get_attribute_value(a) for a in node.attribute},
            node.name or f"{node.op_type}_{index}",
            "" if node.domain == "ai.onnx" else node.domain,
        )
        for index, node in enumerate(model.graph.node)
    ]
    batch_only: set[str] = set()
    kept: list[Node] = []
    for node in in_order(nodes):
        static = all(not i or i in constants or i in batch_only for i in node.inputs)
        if node.op not in ("Shape", "Size") and not static:
            kept.append(node)
            continue
        outputs = [o for o in node.outputs if o]
        if all(
            np.array_equal(values[0][o], values[1][o], equal_nan=_floats(values[0][o]))
            for o in outputs
        ):
            constants.update({o: values[0][o] for o in outputs})
        else:
            batch_only.update(outputs)
            kept.append(node)
    shapes.update({name: tuple(value.shape) for name, value in constants.items()})
    dtypes = {
        name: helper.np_dtype_to_tensor_dtype(value.dtype)
        for source in (values[0], constants)
        for name, value in source.items()
    }
    return Graph(
        nodes=kept,
        shapes=shapes,
        dtypes=dtypes,
        constants=constants,
        batch_only=batch_only,
        input=window_input,
        time_axis=axis,
        window=shapes[window_input][axis],
        outputs=[entry.name for entry in model.graph.output],
        opset=opset_of(model),
        imports=list(model.opset_import),
        ir_version=model.ir_version,
        metadata=metadata_of(model),
    )


def _floats(value: Array) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating))


def _fold(graph: Graph) -> None:
    """Spell what is left of shape arithmetic as functions of the batch; drop zero start states."""
    for node in graph.nodes:
        if node.op in ("Shape", "Size"):
            source = graph.shapes[node.inputs[0]]
            if node.op == "Size":
                source = (int(np.prod([abs(d) for d in source])) * (-1 if min(source) < 0 else 1),)
            else:
                source = source[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
            node.attrs = {"dims": source, "scalar": node.op == "Size"}
            node.op, node.inputs = "BatchShape", []
        if node.op in GATES:
            for index in (5, 6):
                if _is_zero(graph, node.input(index)):
                    node.inputs[index] = ""


def _is_zero(graph: Graph, tensor: str) -> bool:
    """A start state of zeros, also one whose shape follows the batch."""
    if tensor in graph.constants:
        return not np.any(graph.constants[tensor])
    producer = {o: n for n in graph.nodes for o in n.outputs}.get(tensor)
    if tensor not in graph.batch_only or producer is None:
        return False
    if producer.op == "ConstantOfShape":
        fill = producer.attrs.get("value")
        return fill is None or not np.any(numpy_helper.to_array(fill))
    passing = ("Expand", "Slice", "Reshape", "Transpose", "Gather", "Squeeze", "Unsqueeze", "Cast")
    return producer.op in passing and _is_zero(graph, producer.inputs[0])


def _drop_aliases(graph: Graph) -> None:
    """Remove Identity, inference-time Dropout, and Tile and Expand that change nothing."""
    alias: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node.inputs = [alias.get(i, i) for i in node.inputs]
        plain = node.op == "Identity" or (
            node.op == "Dropout" and not any(node.outputs[1:]) and not node.input(2)
        )
        if node.op in ("Tile", "Expand") and node.outputs[0] in graph.shapes:
            plain = graph.shapes[node.inputs[0]] == graph.shapes[node.outputs[0]]
        if plain and node.outputs[0] not in graph.outputs:
            alias[node.outputs[0]] = node.inputs[0]
        else:
            kept.append(node)
    graph.nodes = kept
