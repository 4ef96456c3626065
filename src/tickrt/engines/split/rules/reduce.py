"""Reductions along time keep a running part; CumSum and ArgMax are told apart from them."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule
from tickrt.engines.split.graph import Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, without_columns

_JOIN = {
    "ReduceSum": "Add",
    "ReduceMean": "Add",
    "ReduceSumSquare": "Add",
    "ReduceL1": "Add",
    "ReduceProd": "Mul",
    "ReduceMax": "Max",
    "ReduceMin": "Min",
}
_WHOLE = ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp")


@register(*_JOIN, *_WHOLE)
class Reduce(Rule):
    """Off the time axis position by position; along it known part ∘ newest part."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if "axes" not in node.attrs:
            return "its axes are computed from the data"
        flow = without_columns(a, node.inputs[0])
        axes = node.attrs["axes"]
        if flow.axis is None:
            return flow
        if flow.axis not in axes:
            gone = 0 if node.attrs["keepdims"] else sum(x < flow.axis for x in axes)
            return Flow(flow.axis - gone, flow.fresh)
        if node.op in _WHOLE:
            return "it reduces along time without a running form"
        return Flow(None, frozenset({0} if flow.fresh else ()))

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        time = out.a.flow(node.inputs[0]).axis
        if time not in node.attrs["axes"]:
            return {output: self._over(out, node, positions, node.op)}
        fresh, known = self._parts(out.a, node)
        if out.known or out.a.stateful or not known:
            return {output: self._over(out, node, None, node.op)}
        graph = out.a.graph
        running = out.carry(node, "running", graph.dtypes[output], graph.shapes[output])
        newest = self._scaled(out, node, fresh)
        return {output: out.node(_JOIN[node.op], [newest, running])}

    def carry(
        self, out: GraphBuilder, node: Node, wants: dict[str, Positions], keys: list[str]
    ) -> dict[str, str]:
        return {"running": self._scaled(out, node, self._parts(out.a, node)[1])}

    def _parts(self, a: Analysis, node: Node) -> tuple[Positions, Positions]:
        fresh = a.flow(node.inputs[0]).fresh
        everything = a.positions(node.inputs[0])
        return tuple(sorted(fresh)), tuple(p for p in everything if p not in fresh)

    def _scaled(self, out: GraphBuilder, node: Node, positions: Positions) -> str:
        """The reduction of some positions; a mean as its share of the whole mean."""
        if node.op != "ReduceMean":
            return self._over(out, node, positions, node.op)
        total = len(out.a.positions(node.inputs[0]))
        name = self._over(out, node, positions, "ReduceMean")
        dtype = out.a.graph.dtypes[node.outputs[0]]
        factor = np.array(len(positions) / total, helper.tensor_dtype_to_np_dtype(dtype))
        return out.node("Mul", [name, out.constant(factor)])

    def _over(self, out: GraphBuilder, node: Node, positions: Positions | None, op: str) -> str:
        axes, keepdims = node.attrs["axes"], node.attrs["keepdims"]
        return out.reduce(op, out.take(node.inputs[0], positions), axes, keepdims)


@register("CumSum")
class CumSum(Rule):
    """Every position from the first fresh one on is fresh; the sum so far is carried."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        flow = without_columns(a, node.inputs[0])
        if node.inputs[1] not in a.graph.constants:
            return "its axis is computed from the data"
        axis = int(a.graph.constants[node.inputs[1]]) % a.graph.rank(node.inputs[0])
        if flow.axis != axis or not flow.fresh:
            return flow
        if node.attrs.get("reverse", 0) or node.attrs.get("exclusive", 0):
            return "a reverse or exclusive sum along time"
        return Flow(axis, frozenset(range(min(flow.fresh), a.graph.shapes[node.inputs[0]][axis])))

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        graph, flow = out.a.graph, out.a.flow(output)
        axis = int(graph.constants[node.inputs[1]]) % graph.rank(output)
        if flow.axis != axis:
            data = out.take(node.inputs[0], positions)
            return {output: out.node("CumSum", [data, out.take(node.inputs[1])], node.attrs)}
        first = 0 if out.known else min(flow.fresh)
        span = tuple(range(first, positions[-1] + 1))
        name = out.node("CumSum", [out.take(node.inputs[0], span), out.take(node.inputs[1])])
        if first:
            name = out.node("Add", [name, out.take(output, (first - 1,))])
        return {output: out.pick(name, axis, tuple(p - first for p in positions), len(span))}
