"""Element-wise and broadcasting operators, and the masks that make attention causal."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from tickrt.engines.split.dependence import Analysis, Columns, Flow, Positions, Rule
from tickrt.engines.split.graph import Array, Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, touched_any

MASKED_BELOW = -1e4  # exp(x − max) of such a score is exactly 0 in float32

_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Cos"),
    *("Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal"),
    *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus"),
    *("Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu"),
)
_NARY = (
    *("Add", "And", "BitShift", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum"),
    *("Where", "Xor"),
)
_KEEPS_SCORES = ("Cast", "Identity", "Mul", "Div", "Dropout")


@register(*_UNARY, *_NARY)
class Elementwise(Rule):
    """Out position p needs position p of every operand (the whole of a broadcast one)."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        graph, out = a.graph, node.outputs[0]
        rank = graph.rank(out)
        axis = _time_axis(a, node, rank)
        if axis is None:
            return Flow(None, frozenset({0} if touched_any(a, node.inputs) else ()))
        length = graph.shapes[out][axis]
        fresh: frozenset[int] = frozenset()
        for tensor in node.inputs:
            if graph.is_static(tensor):
                continue
            flow = a.flow(tensor)
            own = None if flow.axis is None else flow.axis + rank - graph.rank(tensor)
            if own == axis and graph.shapes[tensor][flow.axis or 0] == length:
                fresh |= flow.fresh
            elif flow.touched:
                if len(fresh) < length:
                    a.note(node, f"{tensor!r}, which sums up the window, reaches every row")
                fresh |= a.all_fresh(length)
        columns, known = _columns(a, node, axis, fresh, rank)
        if not known:
            a.note(node, "attention scores are combined with what is not a constant mask")
        return Flow(axis, fresh, columns) if known else Flow(axis, a.all_fresh(length))

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        axis, rank = out.a.flow(output).axis, out.a.graph.rank(output)
        inputs = [out.operand(i, axis, positions, rank) for i in node.inputs]
        return {output: out.node(node.op, inputs, node.attrs)}


def _time_axis(a: Analysis, node: Node, rank: int) -> int | None:
    """The output's time axis: that of the first operand which has one, counted from the right."""
    for tensor in node.inputs:
        axis = None if a.graph.is_static(tensor) else a.flow(tensor).axis
        if axis is not None:
            own = axis + rank - a.graph.rank(tensor)
            if a.graph.shapes[tensor][axis] == a.graph.shapes[node.outputs[0]][own]:
                return own
    return None


def _columns(
    a: Analysis, node: Node, axis: int, fresh: frozenset[int], rank: int
) -> tuple[Columns | None, bool]:
    """The output's columns, and whether the known rows are still known."""
    with_columns: list[tuple[str, Columns]] = []
    for tensor in node.inputs:
        columns = None if a.graph.is_static(tensor) else a.flow(tensor).columns
        if columns is not None:
            with_columns.append(
                (tensor, replace(columns, axis=columns.axis + rank - a.graph.rank(tensor)))
            )
    if not with_columns:
        return None, True
    if any(columns != with_columns[0][1] for _, columns in with_columns):
        return None, False
    columns = with_columns[0][1]
    others = [i for i in node.inputs if i and i not in {t for t, _ in with_columns}]
    if any(i not in a.graph.constants for i in others):
        return None, False
    if columns.kind == "fresh" and _hides(a, node, with_columns[0][0], axis, fresh, columns):
        return replace(columns, kind="masked"), True
    kind = _after(node, columns.kind, [a.graph.constants[i] for i in others])
    return (replace(columns, kind=kind), True) if kind else (None, False)


def _after(node: Node, kind: str, others: list[Array]) -> Literal["fresh", "masked", "zero"] | None:
    """What stands in the columns after an operator that is not a mask."""
    if kind == "fresh":
        return "fresh"
    if kind == "zero" and (node.op in (*_KEEPS_SCORES, "IsNaN")):
        return "zero"
    if kind == "zero" and node.op == "Where" and not any(np.any(o) for o in others):
        return "zero"
    positive = all(np.all(o > 0) for o in others if np.issubdtype(o.dtype, np.floating))
    return "masked" if kind == "masked" and node.op in _KEEPS_SCORES and positive else None


def _hides(
    a: Analysis, node: Node, scores: str, axis: int, fresh: frozenset[int], columns: Columns
) -> bool:
    """True when a constant mask puts −inf (or nearly) on the fresh columns of all known rows."""
    constants = a.graph.constants
    if node.op == "Add":
        other = [i for i in node.inputs if i != scores]
        if len(other) != 1:
            return False
        hidden = constants[other[0]] <= MASKED_BELOW
    elif node.op == "Where" and node.inputs[0] in constants:
        keep = constants[node.inputs[0]]
        fill = node.inputs[2] if node.inputs[1] == scores else node.inputs[1]
        if fill == scores or fill not in constants:
            return False
        low = constants[fill] <= MASKED_BELOW
        hidden = (~keep if node.inputs[1] == scores else keep) & low
    else:
        return False
    shape = [abs(d) for d in a.graph.shapes[node.outputs[0]]]
    if any(d < 0 for d in a.graph.shapes[node.outputs[0]]):
        shape = [1 if d < 0 else d for d in a.graph.shapes[node.outputs[0]]]
    if hidden.ndim > len(shape):
        return False
    hidden = np.broadcast_to(hidden, shape)
    known = [p for p in range(shape[axis]) if p not in fresh]
    block = np.take(np.take(hidden, known, axis), sorted(columns.positions), columns.axis)
    return bool(np.all(block))


@register("QuantizeLinear", "DequantizeLinear")
class Quantise(Rule):
    """Element-wise where the scale is one number, or lies along another axis than time."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        flow = a.flow(node.inputs[0])
        if any(i not in a.graph.constants for i in node.inputs[1:] if i):
            return "its scale is computed from the data"
        scale = a.graph.constants[node.inputs[1]]
        axis = node.attrs.get("axis", 1) % a.graph.rank(node.inputs[0])
        if scale.size > 1 and (flow.axis == axis or node.attrs.get("block_size", 0)):
            return "its scale changes along time"
        return Flow(flow.axis, flow.fresh, None) if flow.columns is None else "quantised scores"

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        inputs = [
            out.take(node.inputs[0], positions),
            *(out.take(i) if i else "" for i in node.inputs[1:]),
        ]
        return {output: out.node(node.op, inputs, node.attrs)}
