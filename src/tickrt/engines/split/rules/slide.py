"""Operators that slide a window along time: Conv, MaxPool, AveragePool, LpPool.

Output position p reads input positions ``p·stride − pad + tap·dilation``. A convolution is linear,
so `pre` sums the taps that lie on known positions (with the bias) and `step` adds the others.
A pool is not; its known inputs are held as a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule
from tickrt.engines.split.graph import Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, touched_any, without_columns


@dataclass(frozen=True)
class Slide:
    """Geometry along the time axis: `index` is its place among the spatial axes."""

    index: int
    spatial: int
    length: int
    kernel: int
    stride: int
    dilation: int
    pad: int

    def reads(self, position: int, tap: int) -> int:
        """The input position (maybe in the padding) of one tap of one output position."""
        return position * self.stride - self.pad + tap * self.dilation

    def touches(self, position: int, inputs: frozenset[int]) -> bool:
        """True when an output position reads any of the input positions."""
        return any(self.reads(position, tap) in inputs for tap in range(self.kernel))

    def attrs(self, attrs: dict[str, Any], taps: range, left: int, right: int) -> dict[str, Any]:
        """The node's attributes with other padding and fewer taps along time."""
        changed = {
            key: list(value) if isinstance(value, list) else value for key, value in attrs.items()
        }
        changed["pads"][self.index] = left
        changed["pads"][self.spatial + self.index] = right
        changed["kernel_shape"][self.index] = len(taps)
        return changed


def _slide(a: Analysis, node: Node) -> Slide | None:
    axis = a.flow(node.inputs[0]).axis
    if axis is None or axis < 2:
        return None
    index, spatial = axis - 2, a.graph.rank(node.inputs[0]) - 2
    return Slide(
        index,
        spatial,
        a.graph.shapes[node.inputs[0]][axis],
        node.attrs["kernel_shape"][index],
        node.attrs["strides"][index],
        node.attrs.get("dilations", [1] * spatial)[index],
        node.attrs["pads"][index],
    )


@register("MaxPool", "AveragePool", "LpPool")
class Pool(Rule):
    """The output at p needs all inputs under its window."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if any(node.outputs[1:]):
            return "its indices are used as an output"
        if node.attrs.get("ceil_mode", 0) or "pads" not in node.attrs:
            return "ceil_mode"
        return self._slid(a, node)

    def _slid(self, a: Analysis, node: Node) -> Flow | str:
        flow = without_columns(a, node.inputs[0])
        slide = _slide(a, node)
        if slide is None:
            return flow if flow.axis != 1 or not flow.fresh else self.on_channels(a, node, flow)
        outputs = a.graph.shapes[node.outputs[0]][flow.axis or 0]
        everything = frozenset(range(slide.length))
        if not all(slide.touches(p, everything) for p in range(outputs)):
            return "some of its outputs see nothing but padding"
        fresh = frozenset(p for p in range(outputs) if slide.touches(p, flow.fresh))
        return Flow(flow.axis, fresh)

    def on_channels(self, a: Analysis, node: Node, flow: Flow) -> Flow | str:
        """Time as the channel axis: pools keep channels apart."""
        return flow

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        slide = _slide(out.a, node)
        rest = [out.take(i) for i in node.inputs[1:]]
        if slide is None:
            return {
                output: out.node(node.op, [out.take(node.inputs[0], positions), *rest], node.attrs)
            }
        return {output: _plain(out, node, slide, positions, rest)}


def _plain(out: GraphBuilder, node: Node, slide: Slide, wanted: Positions, rest: list[str]) -> str:
    """The operator over all input positions that `wanted` reads."""
    hull = range(wanted[0], wanted[-1] + 1)
    low, high = slide.reads(hull[0], 0), slide.reads(hull[-1], slide.kernel - 1)
    inner = tuple(range(max(0, low), min(slide.length - 1, high) + 1))
    attrs = slide.attrs(node.attrs, range(slide.kernel), inner[0] - low, high - inner[-1])
    name = out.node(node.op, [out.take(node.inputs[0], inner), *rest], attrs)
    return _choose(out, name, slide, hull, wanted)


def _choose(out: GraphBuilder, name: str, slide: Slide, hull: range, wanted: Positions) -> str:
    return out.pick(name, slide.index + 2, tuple(p - hull[0] for p in wanted), len(hull))


@register("Conv")
class Conv(Pool):
    """A convolution; its known taps are summed in `pre`."""

    def flow(self, a: Analysis, node: Node) -> Flow | str:
        if touched_any(a, node.inputs[1:]):
            return "its weights depend on the newest row"
        return self._slid(a, node)

    def on_channels(self, a: Analysis, node: Node, flow: Flow) -> Flow | str:
        return "time is its channel axis"

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        ((output, positions),) = wants.items()
        slide = _slide(out.a, node)
        rest = [out.take(i) for i in node.inputs[1:]]
        if slide is None:
            return {
                output: out.node("Conv", [out.take(node.inputs[0], positions), *rest], node.attrs)
            }
        hull = range(positions[0], positions[-1] + 1)
        share = None if out.known or out.a.stateful else self._share(out.a, node, slide, hull)
        if share is None:
            return {output: _plain(out, node, slide, positions, rest)}
        graph = out.a.graph
        everything, axis = graph.shapes[output], slide.index + 2
        shape = (*everything[:axis], len(hull), *everything[axis + 1 :])
        key = f"sum{hull[0]}_{hull[-1]}"
        partial = out.carry(node, key, graph.dtypes[output], shape)
        new = share.part(out, node, slide, range(share.first_fresh, slide.length), bias=False)
        name = out.node("Add", [new, partial])
        return {output: _choose(out, name, slide, hull, positions)}

    def carry(
        self, out: GraphBuilder, node: Node, wants: dict[str, Positions], keys: list[str]
    ) -> dict[str, str]:
        slide = _slide(out.a, node)
        assert slide is not None
        (key,) = keys
        first, last = (int(p) for p in key.removeprefix("sum").split("_"))
        share = self._share(out.a, node, slide, range(first, last + 1))
        assert share is not None
        parts = {key: share.part(out, node, slide, range(share.first_fresh), bias=True)}
        if wants:
            rest = [out.take(i) for i in node.inputs[1:]]
            parts.update({o: _plain(out, node, slide, p, rest) for o, p in wants.items()})
        return parts

    def _share(self, a: Analysis, node: Node, slide: Slide, hull: range) -> _Share | None:
        """How the outputs `hull` split into known and fresh taps; None where nothing is known."""
        fresh = sorted(a.flow(node.inputs[0]).fresh)
        suffix = bool(fresh) and fresh == list(range(fresh[0], slide.length))
        if not suffix or node.inputs[1] not in a.graph.constants:
            return None
        known = range(fresh[0])
        if not any(slide.reads(p, tap) in known for p in hull for tap in range(slide.kernel)):
            return None
        return _Share(hull, fresh[0])


@dataclass(frozen=True)
class _Share:
    """Output positions `hull`, from inputs before and from `first_fresh`."""

    hull: range
    first_fresh: int

    def part(
        self, out: GraphBuilder, node: Node, slide: Slide, inputs: range, *, bias: bool
    ) -> str:
        """The convolution over some of the input positions, with the taps that lie on them."""
        used = [
            tap
            for tap in range(slide.kernel)
            if any(slide.reads(p, tap) in inputs for p in self.hull)
        ]
        taps = range(used[0], used[-1] + 1)
        low = slide.reads(self.hull[0], taps[0])
        high = slide.reads(self.hull[-1], taps[-1])
        inner = tuple(range(max(inputs[0], low), min(inputs[-1], high) + 1))
        attrs = slide.attrs(node.attrs, taps, inner[0] - low, high - inner[-1])
        weight = out.a.graph.constants[node.inputs[1]]
        cut = np.take(weight, list(taps), slide.index + 2)
        operands = [out.take(node.inputs[0], inner), out.constant(cut)]
        if bias and node.input(2):
            operands.append(out.take(node.inputs[2]))
        return out.node("Conv", operands, attrs)
