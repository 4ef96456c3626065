"""Pick (Slice, Gather, Split), Concat, Pad, Tile: they choose and place positions."""

from __future__ import annotations

import numpy as np

from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule
from tickrt.engines.split.graph import Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import invert, register, touched_any, without_columns


@register("Pick")
class Pick(Rule):
    """Output position p along time is input position picks[p]; other axes are cut as they are."""

    def flow(self, a: Analysis, node: Node) -> Flow:
        flow = without_columns(a, node.inputs[0])
        if flow.axis is None or flow.axis not in node.attrs["picks"]:
            return flow
        return Flow(flow.axis, invert(node.attrs["picks"][flow.axis], flow.fresh))

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        time = out.a.flow(output).axis
        picks: dict[int, list[int]] = node.attrs["picks"]
        if time is not None and time in picks:
            positions = tuple(picks[time][p] for p in positions)
        name = out.take(node.inputs[0], positions)
        for axis, indices in picks.items():
            if axis != time:
                name = out.pick(
                    name, axis, tuple(indices), out.a.graph.shapes[node.inputs[0]][axis]
                )
        return {output: name}


@register("Gather")
class Gather(Rule):
    """What `prepare` leaves as Gather: an embedding look-up, constants by a computed index."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if touched_any(a, node.inputs[:1]) or not a.graph.is_static(node.inputs[0]):
            return "its index is computed from the data"
        flow = without_columns(a, node.inputs[1])
        axis = int(node.attrs.get("axis", 0)) % a.graph.rank(node.inputs[0])
        return Flow(None if flow.axis is None else flow.axis + axis, flow.fresh)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        inputs = [out.take(node.inputs[0]), out.take(node.inputs[1], positions)]
        return {output: out.node("Gather", inputs, node.attrs)}


@register("Concat")
class Concat(Rule):
    """Along time the pieces follow one another; along another axis they lie side by side."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        graph = a.graph
        along = node.attrs["axis"] % graph.rank(node.outputs[0])
        flows = {t: without_columns(a, t) for t in node.inputs if not graph.is_static(t)}
        axes = {f.axis for f in flows.values()}
        if axes == {along} or (axes <= {along, None} and along in axes):
            return Flow(along, self._placed(a, node, along, flows))
        if len(axes) != 1 or None in axes:
            return (
                "its inputs have time in different places"
                if axes != {None}
                else self._plain(a, node)
            )
        (time,) = axes
        return Flow(time, frozenset[int]().union(*(f.fresh for f in flows.values())))

    def _plain(self, a: Analysis, node: Node) -> Flow:
        """Pieces without a time axis: their places are the positions, so each may be known."""
        along = node.attrs["axis"] % a.graph.rank(node.outputs[0])
        if a.graph.shapes[node.outputs[0]][along] < 0:
            return Flow(None, frozenset({0} if touched_any(a, node.inputs) else ()))
        return Flow(along, self._placed(a, node, along, {}))

    def _placed(
        self, a: Analysis, node: Node, along: int, flows: dict[str, Flow]
    ) -> frozenset[int]:
        fresh: set[int] = set()
        start = 0
        for tensor in node.inputs:
            length = a.graph.shapes[tensor][along]
            flow = flows.get(tensor)
            if flow is not None and flow.axis == along:
                fresh.update(start + p for p in flow.fresh)
            elif a.touched(tensor):
                fresh.update(range(start, start + length))
            start += length
        return frozenset(fresh)

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        graph = out.a.graph
        along = node.attrs["axis"] % graph.rank(output)
        time = out.a.flow(output).axis
        if time != along:
            names = [
                out.take(t) if time is None else out.take_along(t, time, positions)
                for t in node.inputs
            ]
            return {output: out.concat(names, along)}
        pieces: list[str] = []
        order: list[int] = []
        start = 0
        for tensor in node.inputs:
            length = graph.shapes[tensor][along]
            own = tuple(p - start for p in sorted(positions) if start <= p < start + length)
            if own:
                pieces.append(out.take_along(tensor, along, own))
                order.extend(p + start for p in own)
            start += length
        indices = tuple(order.index(p) for p in positions)
        return {output: out.pick(out.concat(pieces, along), along, indices, len(order))}


@register("Pad")
class Pad(Rule):
    """Constant padding shifts positions; other modes only off the time axis."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if "pads" not in node.attrs or touched_any(a, node.inputs[1:]):
            return "its padding is computed from the data"
        flow = without_columns(a, node.inputs[0])
        if flow.axis is None:
            return flow
        rank = a.graph.rank(node.outputs[0])
        begin, end = node.attrs["pads"][flow.axis], node.attrs["pads"][rank + flow.axis]
        if (begin or end) and (node.attrs["mode"] != "constant" or begin < 0 or end < 0):
            return f"padding along time in mode {node.attrs['mode']!r}"
        length = a.graph.shapes[node.outputs[0]][flow.axis]
        if len(flow.fresh) == length - begin - end:
            return Flow(flow.axis, a.all_fresh(length))
        return Flow(flow.axis, frozenset(p + begin for p in flow.fresh))

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        rank, time = out.a.graph.rank(output), out.a.flow(output).axis
        pads = list(node.attrs["pads"])
        rest = [out.take(i) for i in node.inputs[1:]]
        if time is None:
            return {output: self._node(out, out.take(node.inputs[0]), pads, rest, node)}
        begin, length = pads[time], out.a.graph.shapes[node.inputs[0]][time]
        low, high = min(positions[0] - begin, length - 1), max(positions[-1] - begin, 0)
        inner = tuple(range(max(0, low), min(length - 1, high) + 1))
        pads[time], pads[rank + time] = inner[0] - low, high - inner[-1]
        source = tuple(range(low, high + 1))
        name = self._node(out, out.take(node.inputs[0], inner), pads, rest, node)
        wanted = tuple(source.index(p - begin) for p in positions)
        return {output: out.pick(name, time, wanted, len(source))}

    def _node(
        self, out: GraphBuilder, data: str, pads: list[int], rest: list[str], node: Node
    ) -> str:
        if not any(pads):
            return data
        inputs = [data, out.constant(np.array(pads, np.int64)), *rest]
        return out.node("Pad", inputs, {"mode": node.attrs["mode"]})
