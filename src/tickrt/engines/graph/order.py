"""Order and liveness of the nodes of a graph, whatever kind of object a node is.

Entry points: `in_order` (producers before consumers), `live` (what the outputs need), `reads_of`.

Invariants: stable: what need not move stays where it was, so equal graphs give equal bytes. An
empty name is an input or output that is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from onnx import NodeProto

__all__ = ["in_order", "live", "reads_of"]

Kind = TypeVar("Kind")
Names = Callable[[Kind], Iterable[str]]


def reads_of(node: NodeProto) -> Iterable[str]:
    """What an ONNX node reads, its subgraphs' outer tensors included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = {v.name for v in attribute.g.input} | {t.name for t in attribute.g.initializer}
            for child in attribute.g.node:
                yield from (name for name in reads_of(child) if name not in inner)
                inner.update(child.output)


def in_order(
    nodes: Sequence[Kind], reads: Names[Kind], writes: Names[Kind]
) -> tuple[list[Kind], list[Kind]]:
    """Producers before consumers.

    Returns:
        the nodes in order, and those that lie on a cycle or behind one.
    """
    waiting = {name for node in nodes for name in writes(node) if name}
    ordered: list[Kind] = []
    left = list(nodes)
    while left:
        late: list[Kind] = []
        for node in left:
            if waiting.intersection(reads(node)):
                late.append(node)
            else:
                ordered.append(node)
                waiting.difference_update(writes(node))
        if len(late) == len(left):
            break
        left = late
    return ordered, left


def live(
    nodes: Sequence[Kind], outputs: Iterable[str], reads: Names[Kind], writes: Names[Kind]
) -> tuple[list[Kind], set[str]]:
    """What `outputs` need.

    Args:
        nodes: producers before consumers.

    Returns:
        the nodes, and every tensor that they read or that is an output.
    """
    needed = set(outputs)
    kept: list[Kind] = []
    for node in reversed(nodes):
        if needed.intersection(writes(node)):
            kept.append(node)
            needed.update(name for name in reads(node) if name)
    return kept[::-1], needed
