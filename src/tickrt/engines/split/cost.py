"""Multiply-adds of a graph, in all and in what each output needs; batch 1.

Counted: MatMul, Gemm, Conv, ConvTranspose, LSTM, GRU, RNN. Element-wise work is not.
"""

from __future__ import annotations

from math import prod

from tickrt.engines.graph.cells import GATES
from tickrt.engines.split.graph import Node, Shape

__all__ = ["macs", "macs_of"]


def macs_of(node: Node, shapes: dict[str, Shape]) -> int:
    """Multiply-adds of one operator."""

    def dims(name: str) -> list[int]:
        return [abs(d) for d in shapes[name]]

    if node.op in ("MatMul", "Gemm"):
        first = dims(node.inputs[0])
        inner = first[0] if node.attrs.get("transA", 0) else first[-1]
        return prod(dims(node.outputs[0])) * inner
    if node.op == "Conv":
        return prod(dims(node.outputs[0])) * prod(dims(node.inputs[1])[1:])
    if node.op == "ConvTranspose":
        return prod(dims(node.inputs[0])) * prod(dims(node.inputs[1])[1:])
    if node.op in GATES:
        steps, batch = dims(node.inputs[0])[:2]
        return steps * batch * (prod(dims(node.inputs[1])) + prod(dims(node.inputs[2])))
    return 0


def macs(nodes: list[Node], shapes: dict[str, Shape]) -> int:
    """Multiply-adds of all nodes."""
    return sum(macs_of(node, shapes) for node in nodes)
