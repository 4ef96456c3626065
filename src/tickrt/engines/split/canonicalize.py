"""One spelling for each operator, so that fewer rules are needed.

Entry points: `canonicalize`, `unmerge`.

* Flatten, Squeeze, Unsqueeze and Reshape become Reshape with a known target ``shape`` attribute;
* Gemm becomes MatMul and Add, an Einsum that is a matrix product becomes one;
* GlobalAveragePool and GlobalMaxPool become reductions;
* Slice, Gather of constant indices and Split become Pick: ``picks``, axis → input positions;
* reductions and pads carry plain attributes instead of constant inputs;
* a bidirectional recurrent layer becomes a forward and a reverse layer.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from onnx import helper

from tickrt.engines.graph.cells import GATES
from tickrt.engines.split.graph import Array, Graph, Node, Shape

__all__ = ["canonicalize", "unmerge"]


def canonicalize(graph: Graph) -> None:
    """Rewrite every operator that has several spellings, in place."""
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


def _einsum(graph: Graph, node: Node) -> list[Node]:
    """One operand: Transpose. Two, where it is a matrix product: Transpose and MatMul."""
    equation = node.attrs["equation"]
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    terms, arrow, target = text.partition("->")
    operands = terms.split(",")
    if not arrow or "." in text or any(len(set(t)) < len(t) for t in (*operands, target)):
        return [node]
    if len(operands) == 1 and sorted(terms) == sorted(target):
        perm = [terms.index(label) for label in target]
        return [Node("Transpose", node.inputs, node.outputs, {"perm": perm}, node.name)]
    if len(operands) != 2:
        return [node]
    first, second = operands
    batch = [x for x in first if x in second and x in target]
    inner = [x for x in first if x in second and x not in target]
    rows = [x for x in first if x not in second]
    columns = [x for x in second if x not in first]
    plain = len(inner) == 1 and len(columns) == 1 and (len(rows) == 1 if batch else bool(rows))
    if not plain or sorted(batch + rows + columns) != sorted(target):
        return [node]
    out: list[Node] = []
    names: list[str] = []
    for tensor, term, order in (
        (node.inputs[0], first, batch + rows + inner),
        (node.inputs[1], second, batch + inner + columns),
    ):
        names.append(_turned(graph, out, tensor, term, order, f"{node.outputs[0]}/{len(names)}"))
    product = batch + rows + columns
    sizes = dict(zip(target, graph.shapes[node.outputs[0]], strict=True))
    name = f"{node.outputs[0]}/product"
    out.append(_new(graph, "MatMul", names, name, tuple(sizes[x] for x in product)))
    perm = [product.index(label) for label in target]
    return [*out, Node("Transpose", [name], node.outputs, {"perm": perm}, node.name)]


def _turned(
    graph: Graph, out: list[Node], tensor: str, term: str, order: list[str], name: str
) -> str:
    """The operand with its axes in this order; a constant is turned here and now."""
    perm = [term.index(label) for label in order]
    if perm == sorted(perm):
        return tensor
    if tensor in graph.constants:
        add_constant(graph, name, np.transpose(graph.constants[tensor], perm))
        return name
    shape = tuple(graph.shapes[tensor][axis] for axis in perm)
    out.append(_new(graph, "Transpose", [tensor], name, shape, {"perm": perm}))
    return name


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
    for default in ("layout", "input_forget"):
        if not node.attrs.get(default, 0):
            node.attrs.pop(default, None)
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


def unmerge(graph: Graph) -> None:
    """[T, batch, E] → [T·batch, E] → linear layer → [T, batch, E']: keep time apart throughout.

    PyTorch's multi-head attention exports so; merged with the batch, time would be lost.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for tensor in set(node.inputs):
            readers.setdefault(tensor, []).append(node)
    dropped: set[int] = set()
    for node in graph.nodes:
        if node.op != "Reshape" or id(node) in dropped:
            continue
        chain, end = _row_chain(graph, node, readers)
        if not chain or end is None:
            continue
        lead = graph.shapes[end.outputs[0]][:-1]
        shape = (*lead, graph.shapes[node.outputs[0]][-1])
        graph.shapes[node.outputs[0]] = node.attrs["shape"] = shape
        chain[-1].outputs = end.outputs
        for step in chain:
            last = graph.shapes[step.outputs[0]][-1]
            graph.shapes[step.outputs[0]] = (*lead, last)
        dropped.add(id(end))
    graph.nodes = [node for node in graph.nodes if id(node) not in dropped]


def _row_chain(
    graph: Graph, start: Node, readers: dict[str, list[Node]]
) -> tuple[list[Node], Node | None]:
    """Operators on the last axis that follow `start` one by one, and the Reshape that undoes it."""
    source, target = graph.shapes[start.inputs[0]], graph.shapes[start.outputs[0]]
    if len(source) < 3 or len(target) != 2 or target[0] == source[0]:
        return [], None
    chain: list[Node] = []
    tensor = start.outputs[0]
    while tensor not in graph.outputs and len(readers.get(tensor, ())) == 1:
        (node,) = readers[tensor]
        if node.op == "Reshape":
            *lead, last = graph.shapes[node.outputs[0]]
            fits = list(source[: len(lead)]) == lead and last == graph.shapes[tensor][-1]
            fits = fits and prod(source[len(lead) :]) == target[1] and len(lead) > 1
            return chain, node if fits else None
        others = [i for i in node.inputs if i != tensor]
        known = all(i in graph.constants for i in others)
        linear = node.op == "MatMul" and node.inputs[0] == tensor
        ranks = [graph.rank(i) for i in others if known]
        fits = (linear and ranks == [2]) or (node.op in _ON_ROWS and all(r <= 1 for r in ranks))
        if not known or not fits or node.domain:
            break
        chain.append(node)
        tensor = node.outputs[0]
    return [], None


_ON_ROWS = ("Add", "Sub", "Mul", "Div", "Relu", "Gelu", "Erf", "Sigmoid", "Tanh", "LeakyRelu")
_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
_REWRITES: dict[str, Callable[[Graph, Node], list[Node]]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool"), _window_op),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys((f"Reduce{kind}" for kind in _REDUCTIONS), _reduction),
    **dict.fromkeys(GATES, _recurrent),
    "Einsum": _einsum,
    "Gemm": _gemm,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Pad": _pad,
}
