"""From an ONNX model to a `Graph`: shapes found, constants folded, operators in one spelling.

Entry point: `prepare`. What it normalises, so that fewer rules are needed:

* Flatten, Squeeze, Unsqueeze and Reshape become Reshape with a known target ``shape`` attribute;
* Gemm becomes MatMul and Add; GlobalAveragePool and GlobalMaxPool become reductions;
* Slice, Split, reductions and pads carry plain attributes instead of constant inputs;
* a bidirectional recurrent layer becomes a forward and a reverse layer;
* whatever depends on no input is folded; what depends on the batch size alone is marked.

Known limits: opset 13 or newer after conversion, one window input, no control flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import helper, numpy_helper

from tickrt.engines.split.graph import Array, Graph, Node, Shape, probe
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
    model = _modern(model)
    info = find_input(model, input)
    shape, axis = _input_shape(info, time_axis, window)
    values, shapes = _measure(model, info, shape)
    graph = _read(model, info.name, axis, values, shapes)
    for step in (_fold, _normalise, _drop_aliases):
        step(graph)
    return graph


def find_input(model: onnx.ModelProto, name: str | None) -> onnx.ValueInfoProto:
    """The window input: `name`, or the only input that is not an initialiser."""
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in initialisers]
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
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _MIN_OPSET:
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
    for node in nodes:
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
        opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        imports=list(model.opset_import),
        ir_version=model.ir_version,
        metadata={entry.key: entry.value for entry in model.metadata_props},
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
        if node.op in ("LSTM", "GRU", "RNN"):
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
    """Remove Identity and inference-time Dropout."""
    alias: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node.inputs = [alias.get(i, i) for i in node.inputs]
        plain = node.op == "Identity" or (
            node.op == "Dropout" and not any(node.outputs[1:]) and not node.input(2)
        )
        if plain and node.outputs[0] not in graph.outputs:
            alias[node.outputs[0]] = node.inputs[0]
        else:
            kept.append(node)
    graph.nodes = kept


def _normalise(graph: Graph) -> None:
    nodes: list[Node] = []
    for node in graph.nodes:
        rewrite = _REWRITES.get(node.op) if node.domain == "" else None
        static = all(graph.is_static(i) for i in node.inputs)
        nodes.extend(rewrite(graph, node) if rewrite and not static else [node])
    graph.nodes = nodes


def _reshape(graph: Graph, node: Node) -> list[Node]:
    node.op, node.inputs = "Reshape", node.inputs[:1]
    node.attrs = {"shape": graph.shapes[node.outputs[0]]}
    return [node]


def _gemm(graph: Graph, node: Node) -> list[Node]:
    a, b, c = node.inputs[0], node.inputs[1], node.input(2)
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    out: list[Node] = []

    def scaled(tensor: str, factor: float, transpose: bool) -> str:
        name = f"{tensor}/{node.name}"
        if tensor in graph.constants:
            value = graph.constants[tensor]
            value = value.T if transpose else value
            add_constant(graph, name, (value * value.dtype.type(factor)) if factor != 1 else value)
            return name
        if transpose:
            turned = tuple(reversed(graph.shapes[tensor]))
            out.append(_new(graph, "Transpose", [tensor], name, turned, {"perm": [1, 0]}))
            tensor = name
        if factor != 1:
            add_constant(graph, f"{name}/factor", np.array(factor, np.float32))
            inputs = [tensor, f"{name}/factor"]
            out.append(_new(graph, "Mul", inputs, f"{name}/scaled", graph.shapes[tensor]))
            tensor = f"{name}/scaled"
        return tensor

    left = scaled(a, 1.0, bool(node.attrs.get("transA", 0)))
    right = scaled(b, alpha, bool(node.attrs.get("transB", 0)))
    shape = graph.shapes[node.outputs[0]]
    if not c:
        return [*out, Node("MatMul", [left, right], node.outputs, {}, node.name)]
    bias = scaled(c, beta, False)
    out.append(_new(graph, "MatMul", [left, right], f"{node.outputs[0]}/product", shape))
    return [*out, Node("Add", [f"{node.outputs[0]}/product", bias], node.outputs, {}, node.name)]


def add_constant(graph: Graph, name: str, value: Array) -> None:
    """Put a constant into the graph."""
    graph.constants[name] = value
    graph.shapes[name] = tuple(value.shape)
    graph.dtypes[name] = helper.np_dtype_to_tensor_dtype(value.dtype)


def _new(
    graph: Graph,
    op: str,
    inputs: list[str],
    output: str,
    shape: Shape,
    attrs: dict[str, Any] | None = None,
) -> Node:
    graph.shapes[output] = shape
    graph.dtypes[output] = graph.dtypes[inputs[0]]
    return Node(op, inputs, [output], attrs or {}, output)


def _window_op(graph: Graph, node: Node) -> list[Node]:
    """Conv and pools: every attribute spelled out, no auto_pad."""
    spatial = graph.rank(node.inputs[0]) - 2
    if node.op == "Conv":
        kernel = list(graph.shapes[node.inputs[1]][2:])
    else:
        kernel = list(node.attrs["kernel_shape"])
    strides = list(node.attrs.get("strides", [1] * spatial))
    dilations = list(node.attrs.get("dilations", [1] * spatial))
    pads = list(node.attrs.get("pads", [0] * (2 * spatial)))
    auto = node.attrs.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto.startswith("SAME"):
        for i in range(spatial):
            length = graph.shapes[node.inputs[0]][2 + i]
            out = graph.shapes[node.outputs[0]][2 + i]
            total = max(0, (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - length)
            small, big = total // 2, total - total // 2
            pads[i], pads[spatial + i] = (small, big) if auto == "SAME_UPPER" else (big, small)
    node.attrs.pop("auto_pad", None)
    node.attrs.update(kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads)
    if node.op == "AveragePool" and graph.opset < 19:
        node.attrs.pop("dilations")
    return [node]


def _global_pool(graph: Graph, node: Node) -> list[Node]:
    node.op = "ReduceMean" if node.op == "GlobalAveragePool" else "ReduceMax"
    node.attrs = {"axes": list(range(2, graph.rank(node.inputs[0]))), "keepdims": 1}
    return [node]


def _reduction(graph: Graph, node: Node) -> list[Node]:
    axes = node.attrs.get("axes")
    if node.input(1):
        if node.inputs[1] not in graph.constants:
            return [node]
        axes = graph.constants[node.inputs[1]].tolist()
    rank = graph.rank(node.inputs[0])
    if not axes:
        axes = [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    node.inputs = node.inputs[:1]
    node.attrs = {"axes": sorted(a % rank for a in axes), "keepdims": node.attrs.get("keepdims", 1)}
    return [node]


def _slice(graph: Graph, node: Node) -> list[Node]:
    if any(i and i not in graph.constants for i in node.inputs[1:]):
        return [node]
    starts, ends = (graph.constants[i].tolist() for i in node.inputs[1:3])
    axes = graph.constants[node.inputs[3]].tolist() if node.input(3) else list(range(len(starts)))
    steps = graph.constants[node.inputs[4]].tolist() if node.input(4) else [1] * len(starts)
    shape = graph.shapes[node.inputs[0]]
    axes = [a % len(shape) for a in axes]
    if any(shape[a] < 0 for a in axes):
        return [node]
    picks = {
        a: list(range(shape[a]))[slice(s, _open(e, step), step)]
        for a, s, e, step in zip(axes, starts, ends, steps, strict=True)
    }
    node.inputs, node.attrs, node.op = node.inputs[:1], {"picks": picks}, "Pick"
    return [node]


def _open(end: int, step: int) -> int | None:
    """ONNX spells "to the very end" of a backward slice as a huge negative number."""
    return None if step < 0 and end < -(1 << 30) else end


def _gather(graph: Graph, node: Node) -> list[Node]:
    """A Gather of constant indices becomes Pick (and Reshape where the axis goes away)."""
    axis = node.attrs.get("axis", 0) % graph.rank(node.inputs[0])
    length = graph.shapes[node.inputs[0]][axis]
    if node.inputs[1] not in graph.constants or length < 0:
        return [node]
    indices = graph.constants[node.inputs[1]]
    picks = {axis: [int(i) % length for i in indices.reshape(-1)]}
    if indices.ndim == 1:
        return [Node("Pick", node.inputs[:1], node.outputs, {"picks": picks}, node.name)]
    shape = list(graph.shapes[node.inputs[0]])
    shape[axis] = indices.size
    picked = f"{node.outputs[0]}/picked"
    first = _new(graph, "Pick", node.inputs[:1], picked, tuple(shape), {"picks": picks})
    target = {"shape": graph.shapes[node.outputs[0]]}
    return [first, Node("Reshape", [picked], node.outputs, target, node.name)]


def _split(graph: Graph, node: Node) -> list[Node]:
    """Every output of a Split becomes its own Pick."""
    axis = node.attrs.get("axis", 0) % graph.rank(node.inputs[0])
    if graph.shapes[node.inputs[0]][axis] < 0:
        return [node]
    out: list[Node] = []
    start = 0
    for index, output in enumerate(node.outputs):
        size = graph.shapes[output][axis]
        picks = {axis: list(range(start, start + size))}
        out.append(
            Node("Pick", node.inputs[:1], [output], {"picks": picks}, f"{node.name}.{index}")
        )
        start += size
    return out


def _pad(graph: Graph, node: Node) -> list[Node]:
    rank = graph.rank(node.inputs[0])
    fill = node.input(2)
    if node.inputs[1] not in graph.constants or (fill and fill not in graph.constants):
        return [node]
    pads = graph.constants[node.inputs[1]].tolist()
    if node.input(3):
        if node.inputs[3] not in graph.constants:
            return [node]
        axes = [a % rank for a in graph.constants[node.inputs[3]].tolist()]
        begin, end = [0] * rank, [0] * rank
        for i, a in enumerate(axes):
            begin[a], end[a] = pads[i], pads[len(axes) + i]
        pads = begin + end
    mode = node.attrs.get("mode", b"constant")
    node.attrs = {"pads": pads, "mode": mode.decode() if isinstance(mode, bytes) else mode}
    node.inputs = [node.inputs[0], *([fill] if fill else [])]
    return [node]


def _recurrent(graph: Graph, node: Node) -> list[Node]:
    direction = node.attrs.get("direction", b"forward")
    node.attrs["direction"] = direction.decode() if isinstance(direction, bytes) else direction
    weights = [i for i in (1, 2, 3, 5, 6, 7) if node.input(i)]
    if node.attrs["direction"] != "bidirectional" or node.attrs.get("layout", 0):
        return [node]
    if any(node.inputs[i] not in graph.constants for i in weights):
        return [node]
    out: list[Node] = []
    halves: list[list[str]] = []
    for side, name in enumerate(("forward", "reverse")):
        inputs = list(node.inputs)
        for i in weights:
            inputs[i] = f"{node.inputs[i]}/{node.name}.{name}"
            add_constant(graph, inputs[i], graph.constants[node.inputs[i]][side : side + 1])
        outputs = [f"{o}/{name}" if o else "" for o in node.outputs]
        for whole, half, axis in zip(node.outputs, outputs, (1, 0, 0), strict=False):
            if half:
                shape = list(graph.shapes[whole])
                shape[axis] = 1
                graph.shapes[half], graph.dtypes[half] = tuple(shape), graph.dtypes[whole]
        attrs = {**node.attrs, "direction": name}
        count = len(attrs.get("activations", ())) // 2
        if count:
            attrs["activations"] = attrs["activations"][side * count : (side + 1) * count]
        out.append(Node(node.op, inputs, outputs, attrs, f"{node.name}.{name}"))
        halves.append(outputs)
    for index, whole in enumerate(node.outputs):
        if whole:
            parts = [half[index] for half in halves]
            attrs = {"axis": 1 if index == 0 else 0}
            out.append(Node("Concat", parts, [whole], attrs, f"{node.name}.{index}"))
    return out


_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
_REWRITES: dict[str, Callable[[Graph, Node], list[Node]]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool"), _window_op),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys((f"Reduce{kind}" for kind in _REDUCTIONS), _reduction),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Gemm": _gemm,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Pad": _pad,
}
