"""MatMul, wherever time lies in it.

In rows or columns, positions stay apart. On the contracted axis the product is a sum over time:
`pre` makes the sum over the known positions, `step` adds the newest one's share. Query rows times
key columns make attention scores, whose second time axis is kept as `Columns`.
"""

from __future__ import annotations

from typing import Literal

from tickrt.engines.split.dependence import Analysis, Columns, Flow, Positions, Rule
from tickrt.engines.split.graph import Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, without_columns

Place = Literal["none", "row", "column", "inner", "batch"]


@register("MatMul")
class MatMul(Rule):
    """a[.., M, K] @ b[.., K, N]; b may be a vector [K]."""

    def flow(self, a: Analysis, node: Node) -> Flow | list[Flow] | str:
        left, right = _places(a, node)
        first, second = (without_columns(a, t) for t in node.inputs)
        rank = a.graph.rank(node.outputs[0])
        length = lambda axis: a.graph.shapes[node.outputs[0]][axis]  # noqa: E731
        if a.graph.rank(node.inputs[0]) < 2:
            return "its first operand is a vector"
        if left == "row":
            axis = a.flow(node.inputs[0]).axis or 0
            if a.graph.rank(node.inputs[1]) > 1:
                axis = rank - 2
            return self._rows(a, node, right, first, second, axis)
        if left == "none" and right == "none":
            return Flow(None, first.fresh | second.fresh)
        if left == "none" and right == "column":
            fresh = a.all_fresh(length(rank - 1)) if first.fresh else second.fresh
            return Flow(rank - 1, fresh)
        if "inner" in (left, right):
            if {left, right} <= {"inner", "none"}:
                return Flow(None, frozenset({0} if first.fresh or second.fresh else ()))
            return "time is contracted on one side only"
        return self._batched(a, node, left, right)

    def _rows(
        self, a: Analysis, node: Node, right: Place, first: Flow, second: Flow, axis: int
    ) -> Flow | str:
        everything = a.all_fresh(a.graph.shapes[node.outputs[0]][axis])
        if right == "batch":
            return "time is in the rows of one operand and in the batch of the other"
        if not a.touched(node.inputs[1]):
            return Flow(axis, first.fresh)
        if right == "column":
            columns = Columns(axis + 1, second.fresh, "fresh")
            return Flow(axis, first.fresh, columns)
        zeros = a.flow(node.inputs[0]).columns
        hidden = (
            right == "inner"
            and zeros is not None
            and zeros.kind == "zero"
            and zeros.axis == a.graph.rank(node.inputs[0]) - 1
            and second.fresh <= zeros.positions
        )
        return Flow(axis, first.fresh if hidden else everything)

    def _batched(self, a: Analysis, node: Node, left: Place, right: Place) -> Flow | str:
        rank = a.graph.rank(node.outputs[0])
        axes: set[int] = set()
        fresh: frozenset[int] = frozenset()
        for tensor, place in zip(node.inputs, (left, right), strict=True):
            flow = without_columns(a, tensor)
            if place == "batch":
                axes.add((flow.axis or 0) + rank - a.graph.rank(tensor))
                fresh |= flow.fresh
            elif place != "none":
                return "time is in the batch of one operand only"
        (axis,) = axes if len(axes) == 1 else (-1,)
        if axis < 0:
            return "time is in different batch axes of the operands"
        if any(a.touched(t) and a.flow(t).axis is None for t in node.inputs):
            fresh = a.all_fresh(a.graph.shapes[node.outputs[0]][axis])
        return Flow(axis, fresh)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        left, right = _places(out.a, node)
        x, w = node.inputs
        if left == "row":
            if right == "column" and not out.known and out.a.touched(w):
                return {output: self._scores(out, x, w, positions, output)}
            return {output: out.node("MatMul", [out.take(x, positions), out.take(w)])}
        if right == "column":
            return {output: out.node("MatMul", [out.take(x), out.take(w, positions)])}
        if "batch" in (left, right):
            axis, rank = out.a.flow(output).axis, out.a.graph.rank(output)
            return {
                output: out.node("MatMul", [out.operand(t, axis, positions, rank) for t in (x, w)])
            }
        fresh = self._summed_fresh(out.a, node)
        if out.known or not fresh or out.a.stateful:
            return {output: out.node("MatMul", [out.take(x), out.take(w)])}
        return {output: self._share(out, node, fresh)}

    def _scores(self, out: GraphBuilder, x: str, w: str, positions: Positions, output: str) -> str:
        """Scores against old and new keys apart, so that no key is copied."""
        rows = out.take(x, positions)
        fresh = tuple(sorted(out.a.flow(w).fresh))
        old = tuple(p for p in out.a.positions(w) if p not in fresh)
        if not old:
            return out.node("MatMul", [rows, out.take(w)])
        axis = out.a.graph.rank(output) - 1
        parts = [out.node("MatMul", [rows, out.take(w, part)]) for part in (old, fresh)]
        order = old + fresh
        indices = tuple(order.index(p) for p in out.a.positions(w))
        return out.pick(out.concat(parts, axis), axis, indices, len(order))

    def _summed_fresh(self, a: Analysis, node: Node) -> Positions:
        """Fresh positions of the contracted axis, () where there is nothing known to sum."""
        left, right = _places(a, node)
        if "inner" not in (left, right):
            return ()
        fresh: set[int] = set()
        for tensor, place in zip(node.inputs, (left, right), strict=True):
            if place == "inner":
                fresh |= a.flow(tensor).fresh
                length = len(a.positions(tensor))
            elif a.touched(tensor):
                return ()
        return tuple(sorted(fresh)) if len(fresh) < length else ()

    def _share(self, out: GraphBuilder, node: Node, fresh: Positions) -> str:
        output = node.outputs[0]
        graph = out.a.graph
        partial = out.carry(node, "sum", graph.dtypes[output], graph.shapes[output])
        x, w = self._cut(out, node, fresh)
        if graph.rank(node.inputs[0]) == 2 and graph.rank(node.inputs[1]) == 2:
            return out.node("Gemm", [x, w, partial])
        return out.node("Add", [out.node("MatMul", [x, w]), partial])

    def _cut(self, out: GraphBuilder, node: Node, positions: Positions) -> tuple[str, str]:
        x, w = node.inputs
        graph = out.a.graph
        inner = max(0, graph.rank(w) - 2)
        return out.take_along(x, graph.rank(x) - 1, positions), out.take_along(w, inner, positions)

    def carry(
        self, out: GraphBuilder, node: Node, wants: dict[str, Positions], keys: list[str]
    ) -> dict[str, str]:
        fresh = self._summed_fresh(out.a, node)
        left, _ = _places(out.a, node)
        everything = out.a.positions(node.inputs[0 if left == "inner" else 1])
        known = tuple(p for p in everything if p not in fresh)
        return {"sum": out.node("MatMul", list(self._cut(out, node, known)))}


def _places(a: Analysis, node: Node) -> tuple[Place, Place]:
    """Where time lies in each operand."""
    places: list[Place] = []
    for index, tensor in enumerate(node.inputs):
        axis = None if a.graph.is_static(tensor) else a.flow(tensor).axis
        rank = a.graph.rank(tensor)
        if axis is None:
            places.append("none")
        elif rank == 1:
            places.append("inner")
        elif axis == rank - 1:
            places.append("inner" if index == 0 else "column")
        elif axis == rank - 2:
            places.append("row" if index == 0 else "inner")
        else:
            places.append("batch")
    return places[0], places[1]
