"""Normalisations and softmax: split where they work off the time axis."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule
from tickrt.engines.split.graph import Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, touched_any, without_columns


class _Positionwise(Rule):
    """Output position p is made from input position p and constants."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        flow = without_columns(a, node.inputs[0])
        if touched_any(a, node.inputs[1:]):
            return "its parameters depend on the newest row"
        if flow.axis is not None and self.mixes(a, node, flow.axis):
            return "it normalises along time"
        return flow

    @abstractmethod
    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        """True when different positions in time go into one output."""

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        positions = next(iter(wants.values()))
        data = out.take(node.inputs[0], positions)
        rest = [out.take(i) if i else "" for i in node.inputs[1:]]
        outputs = [o if o in wants else "" for o in node.outputs]
        names = out.nodes_of(node.op, [data, *rest], node.attrs, outputs)
        return {o: n for o, n in zip(outputs, names, strict=True) if o}


@register("LayerNormalization", "RMSNormalization")
class LayerNorm(_Positionwise):
    """Over the last axes, from `axis` on."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if any(node.outputs[1:]):
            return "its mean and variance are used as outputs"
        return super().flow(a, node)

    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        return time >= int(node.attrs.get("axis", -1)) % a.graph.rank(node.inputs[0])


@register("LpNormalization")
class LpNorm(_Positionwise):
    """Over one axis."""

    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        return time == int(node.attrs.get("axis", -1)) % a.graph.rank(node.inputs[0])


@register("InstanceNormalization", "GroupNormalization")
class InstanceNorm(_Positionwise):
    """Over everything but the batch."""

    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        return True


@register("Softmax", "LogSoftmax", "Hardmax")
class Softmax(_Positionwise):
    """Over one axis. Masked columns become exact zeros; fresh ones reach every row."""

    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        return time == int(node.attrs.get("axis", -1)) % a.graph.rank(node.inputs[0])

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        flow = a.flow(node.inputs[0])
        axis = int(node.attrs.get("axis", -1)) % a.graph.rank(node.inputs[0])
        columns = flow.columns
        if columns is None or columns.axis != axis or flow.axis == axis:
            return super().flow(a, node)
        if columns.kind == "masked" and node.op == "Softmax":
            return replace(flow, columns=replace(columns, kind="zero"))
        a.note(node, "attention without a causal mask: every query row sees the newest key")
        return without_columns(a, node.inputs[0])


@register("BatchNormalization")
class BatchNorm(_Positionwise):
    """Constants per channel; where time is the channel axis, the constants are cut instead."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if node.attrs.get("training_mode", 0) or any(node.outputs[1:]):
            return "it is in training mode"
        if any(i not in a.graph.constants for i in node.inputs[1:]):
            return "its parameters are not constant"
        return super().flow(a, node)

    def mixes(self, a: Analysis, node: Node, time: int) -> bool:
        return False

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        data = out.take(node.inputs[0], positions)
        if out.a.flow(output).axis == 1:
            rest = [out.take_along(i, 0, positions) for i in node.inputs[1:]]
        else:
            rest = [out.take(i) for i in node.inputs[1:]]
        return {output: out.node(node.op, [data, *rest], node.attrs)}
