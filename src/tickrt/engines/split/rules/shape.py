"""Transpose, Reshape, Expand: they move the time axis about."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from tickrt.engines.split.dependence import Analysis, Columns, Flow, Positions, Rule
from tickrt.engines.split.graph import Node, Shape
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import invert, register, without_columns


@register("Transpose")
class Transpose(Rule):
    """The axes are renamed."""

    def flow(self, a: Analysis, node: Node) -> Flow:
        flow = a.flow(node.inputs[0])
        perm = _perm(a, node)
        columns = flow.columns
        if columns is not None:
            columns = replace(columns, axis=perm.index(columns.axis))
        return Flow(None if flow.axis is None else perm.index(flow.axis), flow.fresh, columns)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        data = out.take(node.inputs[0], positions)
        return {output: out.node("Transpose", [data], {"perm": _perm(out.a, node)})}


def _perm(a: Analysis, node: Node) -> list[int]:
    rank = a.graph.rank(node.inputs[0])
    return list(node.attrs.get("perm", range(rank - 1, -1, -1)))


@register("Reshape")
class Reshape(Rule):
    """Time may stay an axis, be merged with others (Flatten), or be taken apart again.

    With time merged, position p of the merged axis is (before, t, after) of the input; entries of
    one t lie apart when there is something before. Positions are always asked of the input as
    whole rows t, and picked from the merged axis.
    """

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        source, target = a.graph.shapes[node.inputs[0]], a.graph.shapes[node.outputs[0]]
        flow = without_columns(a, node.inputs[0])
        if a.flow(node.inputs[0]).columns is not None:
            flow = a.flow(node.inputs[0])
        if flow.axis is None:
            return flow
        kept = _kept(source, target, flow.axis)
        if kept is not None:
            return self._keep(a, node, flow, kept)
        if source[flow.axis] == 1:
            return Flow(None, flow.fresh)
        if flow.columns is not None:
            return "attention scores are reshaped across time"
        if any(d < -1 for d in (*source, *target)):
            return "time is merged with the batch"
        merged = _merged(source, target, flow.axis)
        if merged is not None:
            axis, before, after = merged
            length = source[flow.axis]
            times = [t for _ in range(before) for t in range(length) for _ in range(after)]
            return Flow(axis, invert(times, flow.fresh))
        parted = _parted(source, target, flow.axis, flow.fresh)
        if parted is not None:
            return parted
        return "time is reshaped in a way that mixes it with another axis"

    def _keep(self, a: Analysis, node: Node, flow: Flow, axis: int) -> Flow | str:
        columns: Columns | None = None
        if flow.columns is not None:
            source, target = a.graph.shapes[node.inputs[0]], a.graph.shapes[node.outputs[0]]
            other = _kept(source, target, flow.columns.axis)
            if other is None or other == axis:
                return "attention scores are reshaped across time"
            columns = replace(flow.columns, axis=other)
        return Flow(axis, flow.fresh, columns)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        graph = out.a.graph
        source, target = graph.shapes[node.inputs[0]], list(graph.shapes[output])
        time, axis = out.a.flow(node.inputs[0]).axis, out.a.flow(output).axis
        if time is None or axis is None:
            return {output: out.reshape(out.take(node.inputs[0]), tuple(target))}
        if source[time] == target[axis] and _kept(source, tuple(target), time) == axis:
            target[axis] = len(positions)
            return {output: out.reshape(out.take(node.inputs[0], positions), tuple(target))}
        merged = _merged(source, tuple(target), time)
        if merged is None:
            rows = target[axis + 1 :]
            block = prod(rows)
            entries = tuple(p * block + i for p in positions for i in range(block))
            target[axis] = len(positions)
            return {output: out.reshape(out.take(node.inputs[0], entries), tuple(target))}
        _, before, after = merged
        length = source[time]
        rows_wanted = tuple(sorted({p // after % length for p in positions}))
        target[axis] = before * len(rows_wanted) * after
        whole = out.reshape(out.take(node.inputs[0], rows_wanted), tuple(target))
        order = [
            (b * length + t) * after + i
            for b in range(before)
            for t in rows_wanted
            for i in range(after)
        ]
        place = {p: i for i, p in enumerate(order)}
        return {output: out.pick(whole, axis, tuple(place[p] for p in positions), len(order))}


def _size(dims: Shape) -> int:
    """Product, negative when the batch is in it."""
    return prod(dims)


def _kept(source: Shape, target: Shape, time: int) -> int | None:
    """The axis of `target` that is axis `time` of `source` unchanged."""
    before, length = _size(source[:time]), source[time]
    candidates = [
        axis for axis, d in enumerate(target) if d == length and _size(target[:axis]) == before
    ]
    if length == 1 and len(candidates) > 1:
        candidates.sort(key=lambda axis: abs(axis - time))
    return candidates[0] if candidates else None


def _merged(source: Shape, target: Shape, time: int) -> tuple[int, int, int] | None:
    """(axis of `target` that holds time, sizes of what is merged before and after it)."""
    lead = _size(source[:time])
    for axis, size in enumerate(target):
        outer = _size(target[:axis])
        if size <= 0 or lead % outer or (lead < 0) != (outer < 0):
            continue
        before = lead // outer
        block = before * source[time]
        if before > 0 and size % block == 0 and size >= block:
            after = size // block
            tail = _size(source[time + 1 :])
            if after <= tail and tail % after == 0 and _boundary(source[time + 1 :], after):
                return axis, before, after
    return None


def _boundary(dims: Shape, after: int) -> bool:
    """True when the first dimensions of `dims` multiply to `after`."""
    return any(_size(dims[:i]) == after for i in range(len(dims) + 1))


def _parted(source: Shape, target: Shape, time: int, fresh: frozenset[int]) -> Flow | None:
    """[.., T·F, ..] → [.., T, F, ..]: time is the first part when the fresh entries fill rows."""
    lead = _size(source[:time])
    for axis, length in enumerate(target):
        if _size(target[:axis]) != lead or length <= 0 or source[time] % length:
            continue
        block = source[time] // length
        if length < 2 or block != _size(target[axis + 1 :]) // max(1, _size(source[time + 1 :])):
            continue
        rows = frozenset(p // block for p in fresh)
        if len(rows) * block == len(fresh) and _size(source[time + 1 :]) == 1:
            return Flow(axis, rows)
    return None


@register("Expand")
class Expand(Rule):
    """Broadcast to a constant shape."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        flow = without_columns(a, node.inputs[0])
        if flow.axis is None:
            return flow
        shift = a.graph.rank(node.outputs[0]) - a.graph.rank(node.inputs[0])
        return Flow(flow.axis + shift, flow.fresh)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        axis, rank = out.a.flow(output).axis, out.a.graph.rank(output)
        shape = out.take(node.inputs[1])
        if axis is not None and node.inputs[1] in out.a.graph.constants:
            dims = out.a.graph.constants[node.inputs[1]].copy()
            if axis >= rank - len(dims):
                dims[axis - (rank - len(dims))] = 1
            shape = out.constant(dims)
        elif axis is not None:
            count = out.a.graph.shapes[node.inputs[1]][0]
            at_time = np.array([i == axis - (rank - count) for i in range(count)], np.int64)
            factors, ones = out.constant(1 - at_time), out.constant(at_time)
            shape = out.node("Add", [out.node("Mul", [shape, factors]), ones])
        return {output: out.node("Expand", [out.take(node.inputs[0], positions), shape])}
