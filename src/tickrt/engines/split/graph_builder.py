"""Writing `pre`, `step` and `advance`: tensors are asked for at positions, from the outputs back.

A `GraphBuilder` walks the graph from its end. `take(tensor, positions)` notes a request and gives
the name under which the answer will stand; when the walk reaches the producer, all requests for its
outputs are known, their union is computed once by the node's rule, and each request is cut out.

In `step` a known position is a *state*: it becomes an input, and `pre` is asked for it. In `pre`
a fresh position is never computed: where one is asked for as part of a whole (the masked keys of
causal attention), the nearest known position stands in; its value cannot reach the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

from tickrt.engines.split.dependence import Analysis, Positions
from tickrt.engines.split.graph import Array, Node, Shape, fingerprint, in_order
from tickrt.errors import SplitError

__all__ = ["Carried", "GraphBuilder", "Held", "newest_name"]


@dataclass(frozen=True)
class Held:
    """A state that is a piece of a tensor: `positions` along its time axis, all known."""

    name: str
    tensor: str
    positions: Positions


@dataclass(frozen=True)
class Carried:
    """A state that a rule makes itself: a recurrent state, a partial sum."""

    name: str
    node: str
    key: str
    dtype: int
    shape: Shape
    recurrent: bool


def newest_name(window_input: str) -> str:
    """The name of `step`'s row input."""
    return f"{window_input}_newest"


@dataclass(eq=False)
class GraphBuilder:
    """Collects one graph. `known` is True for `pre`; `states` are shared by all three graphs."""

    a: Analysis
    known: bool
    held: dict[str, Held] = field(default_factory=dict)
    carried: dict[tuple[str, str], Carried] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    chunks: list[list[Node]] = field(default_factory=list)
    _requests: dict[str, dict[Positions, str]] = field(default_factory=dict)
    _alias: dict[str, str] = field(default_factory=dict)
    _shared: dict[str, str] = field(default_factory=dict)
    _count: int = 0
    frozen_states: bool = False
    time_varying: bool = False
    emitted: dict[str, Positions] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)

    # What rules call -----------------------------------------------------------------------

    def take(self, tensor: str, positions: Positions | None = None) -> str:
        """The tensor at `positions` along its time axis, in that order; default: whole."""
        graph = self.a.graph
        if tensor in graph.constants:
            return self.constant(graph.constants[tensor], tensor)
        if tensor not in graph.batch_only:
            everything = self.a.positions(tensor)
            positions = everything if positions is None else positions
            if self.known:
                positions = self._stand_in(tensor, positions)
        else:
            positions = (0,)
        requests = self._requests.setdefault(tensor, {})
        if positions not in requests:
            requests[positions] = self.fresh_name(f"{tensor}/take")
        return requests[positions]

    def take_along(self, tensor: str, axis: int, positions: Positions) -> str:
        """The tensor at `positions` along any axis of it."""
        graph = self.a.graph
        if tensor in graph.constants:
            value = graph.constants[tensor]
            if positions == tuple(range(value.shape[axis])):
                return self.constant(value, tensor)
            self.time_varying |= bool(np.any(np.ptp(np.asarray(value, np.float64), axis=axis)))
            return self.constant(np.take(value, positions, axis))
        if tensor not in graph.batch_only and self.a.flow(tensor).axis == axis:
            return self.take(tensor, positions)
        return self.pick(self.take(tensor), axis, positions, graph.shapes[tensor][axis])

    def operand(self, tensor: str, axis: int | None, positions: Positions, rank: int) -> str:
        """The tensor as operand of a broadcasting operator wanted at `positions` along `axis`."""
        if axis is None or not tensor:
            return self.take(tensor) if tensor else ""
        shape = self.a.graph.shapes[tensor]
        own = axis - (rank - len(shape))
        if own < 0 or shape[own] == 1:
            return self.take(tensor)
        return self.take_along(tensor, own, positions)

    def node(self, op: str, inputs: list[str], attrs: dict[str, Any] | None = None) -> str:
        """Add an operator with one output; its name."""
        return self.nodes_of(op, inputs, attrs or {}, [op])[0]

    def nodes_of(
        self,
        op: str,
        inputs: list[str],
        attrs: dict[str, Any],
        outputs: list[str],
        domain: str = "",
    ) -> list[str]:
        """Add an operator; the names of its outputs ("" stays "")."""
        names = [self.fresh_name(o) if o else "" for o in outputs]
        self._add(Node(op, list(inputs), names, dict(attrs), names[0], domain))
        return names

    def add(self, kind: str, label: str, *inputs: str) -> str:
        """`node`, as a `graph.cells.CellWriter`; names here need no label."""
        return self.node(kind, list(inputs))

    def cut(self, label: str, tensor: str, sizes: list[int]) -> list[str]:
        """Cut a tensor [batch, n] along its last axis; the names of the parts."""
        lengths = self.constant(np.array(sizes, np.int64))
        parts = [f"{tensor}/part"] * len(sizes)
        return self.nodes_of("Split", [tensor, lengths], {"axis": 1}, parts)

    def copy(self, node: Node, inputs: list[str]) -> list[str]:
        """Add `node` on other inputs, in ONNX's own spelling; the names of its outputs."""
        if node.op == "Reshape" and "shape" in node.attrs:
            return [self.reshape(inputs[0], node.attrs["shape"])]
        if node.op == "Pick":
            name, shape = inputs[0], self.a.graph.shapes[node.inputs[0]]
            for axis, indices in node.attrs["picks"].items():
                name = self.pick(name, axis, tuple(indices), shape[axis])
            return [name]
        if node.op.startswith("Reduce") and "axes" in node.attrs:
            return [self.reduce(node.op, inputs[0], node.attrs["axes"], node.attrs["keepdims"])]
        if node.op == "Pad" and "pads" in node.attrs:
            pads = self.constant(np.array(node.attrs["pads"], np.int64))
            inputs = [inputs[0], pads, *inputs[1:]]
            return [self.node("Pad", inputs, {"mode": node.attrs["mode"]})]
        return self.nodes_of(node.op, inputs, node.attrs, node.outputs, node.domain)

    def reduce(self, op: str, name: str, axes: list[int], keepdims: int) -> str:
        """A reduction with its axes where this opset wants them."""
        if op == "ReduceSum" or self.a.graph.opset >= 18:
            constant = self.constant(np.array(axes, np.int64))
            return self.node(op, [name, constant], {"keepdims": keepdims})
        return self.node(op, [name], {"axes": axes, "keepdims": keepdims})

    def constant(self, value: Array, name: str | None = None) -> str:
        """Add a constant; equal ones are shared."""
        value = np.asarray(value)
        key = fingerprint(value)
        if key not in self._shared:
            self._shared[key] = (
                name if name and name not in self.constants else self.fresh_name("const")
            )
            self.constants[self._shared[key]] = value
        return self._shared[key]

    def reshape(self, tensor: str, shape: Shape) -> str:
        """Reshape; a negative dimension follows the batch."""
        if sum(d < 0 for d in shape) > 1:
            raise SplitError(f"cannot write a shape with two batch dimensions: {shape}")
        target = np.array([-1 if d < 0 else d for d in shape], np.int64)
        return self.node("Reshape", [tensor, self.constant(target)])

    def pick(self, name: str, axis: int, indices: Positions, length: int) -> str:
        """Entries of `name` along `axis`: a Slice where they are consecutive, else a Gather."""
        if indices == tuple(range(length)):
            return name
        if indices == tuple(range(indices[0], indices[0] + len(indices))):
            bounds = [[indices[0]], [indices[-1] + 1], [axis]]
            return self.node(
                "Slice", [name, *(self.constant(np.array(b, np.int64)) for b in bounds)]
            )
        index = self.constant(np.array(indices, np.int64))
        return self.node("Gather", [name, index], {"axis": axis})

    def concat(self, names: list[str], axis: int) -> str:
        """Concat; nothing is added for a single piece."""
        return names[0] if len(names) == 1 else self.node("Concat", names, {"axis": axis})

    def carry(
        self, node: Node, key: str, dtype: int, shape: Shape, *, recurrent: bool = False
    ) -> str:
        """In `step`: a state that the rule's `carry` makes in `pre`; the batch is axis 0."""
        entry = self.carried.get((node.outputs[0], key))
        if entry is None:
            if self.frozen_states:
                raise SplitError(
                    f"{node.op} {node.name!r}: advance needs a state that step has not"
                )
            name = self._state_name(f"{node.name}.{key}")
            entry = Carried(name, node.outputs[0], key, dtype, shape, recurrent)
            self.carried[node.outputs[0], key] = entry
        return entry.name

    # The walk ------------------------------------------------------------------------------

    def run(self, following: bool = False) -> list[Node]:
        """Walk from the last node to the first and give the nodes in order.

        Args:
            following: `advance`: also ask every rule for its carried values after the newest row.
        """
        for node in reversed(self.a.graph.nodes):
            self.chunks.append([])
            wants = {o: self._requests[o] for o in node.outputs if o in self._requests}
            keys = [key for first, key in self.carried if first == node.outputs[0]]
            if all(self.a.graph.is_static(o) for o in node.outputs):
                if wants:
                    self._static(node)
            elif self.known and keys:
                self._known_with_carry(node, keys)
            else:
                if following and keys:
                    following_names = self.a.rule(node).following(self, node, keys)
                    for key, name in following_names.items():
                        self._bind(self.next_name(self.carried[node.outputs[0], key].name), name)
                self._produce(
                    node, {o: self._requests[o] for o in node.outputs if o in self._requests}
                )
        self.chunks.append([])
        self._input()
        nodes = [node for chunk in reversed(self.chunks) for node in chunk]
        for node in nodes:
            node.inputs = [self._resolve(i) for i in node.inputs]
        return in_order(nodes)

    def resolve(self, requested: str) -> str:
        """The tensor that answers a request, once `run` is done."""
        return self._resolve(requested)

    @staticmethod
    def next_name(state: str) -> str:
        """The name of a state after the newest row."""
        return f"{state}_next"

    def fresh_name(self, hint: str) -> str:
        """A name that is not in use."""
        self._count += 1
        return f"{hint}.{self._count}"

    def _add(self, node: Node) -> None:
        self.chunks[-1].append(node)

    def _bind(self, requested: str, name: str) -> None:
        self._alias[requested] = name

    def _resolve(self, name: str) -> str:
        while name in self._alias:
            name = self._alias[name]
        return name

    def _stand_in(self, tensor: str, positions: Positions) -> Positions:
        fresh = self.a.flow(tensor).fresh
        known = sorted(set(self.a.positions(tensor)) - fresh)
        if not fresh.intersection(positions):
            return positions
        if not known:
            raise SplitError(f"{tensor!r} depends on the newest row throughout, yet `pre` needs it")
        return tuple(
            p if p not in fresh else max((k for k in known if k < p), default=known[0])
            for p in positions
        )

    def _produce(self, node: Node, wants: dict[str, dict[Positions, str]]) -> None:
        fresh: dict[str, Positions] = {}
        for tensor, requests in wants.items():
            wanted = set().union(*requests)
            if not self.known:
                wanted &= self.a.late(tensor)
            if wanted:
                fresh[tensor] = tuple(sorted(wanted))
        if fresh:
            self.emitted[node.outputs[0]] = max(fresh.values(), key=len)
        outputs = self.a.rule(node).emit(self, node, fresh) if fresh else {}
        for tensor in wants:
            self._answer(tensor, outputs.get(tensor, ""), fresh.get(tensor, ()))

    def _known_with_carry(self, node: Node, keys: list[str]) -> None:
        wants: dict[str, Positions] = {}
        for tensor in node.outputs:
            if tensor in self._requests:
                wants[tensor] = tuple(sorted(set().union(*self._requests[tensor])))
        outputs = self.a.rule(node).carry(self, node, wants, keys)
        for key in keys:
            self._bind(self.carried[node.outputs[0], key].name, outputs[key])
        for tensor, positions in wants.items():
            self._answer(tensor, outputs[tensor], positions)

    def _answer(self, tensor: str, output: str, at: Positions) -> None:
        """Answer every request for `tensor` from what was made and, in `step`, from a state."""
        axis = self.a.flow(tensor).axis
        requests = self._requests[tensor]
        state: Positions = ()
        if not self.known:
            state = tuple(sorted(set().union(*requests) - set(at)))
        held = self._hold(tensor, state) if state else None
        state = held.positions if held else ()
        both = ""
        for positions, name in requests.items():
            if set(positions) <= set(at):
                source, order = output, at
            elif set(positions) <= set(state):
                assert held is not None
                source, order = held.name, state
            else:
                assert held is not None
                both = both or self.node("Concat", [held.name, output], {"axis": axis or 0})
                source, order = both, state + at
            if axis is not None:
                indices = tuple(order.index(p) for p in positions)
                source = self.pick(source, axis, indices, len(order))
            self._bind(name, source)

    def _hold(self, tensor: str, positions: Positions) -> Held:
        entry = self.held.get(tensor)
        if entry is None:
            if self.frozen_states:
                raise SplitError(f"advance needs {tensor!r}, which step does not hold")
            entry = Held(self._state_name(tensor), tensor, positions)
            self.held[tensor] = entry
        if not set(positions) <= set(entry.positions):
            raise SplitError(f"advance needs more of {tensor!r} than step holds")
        return entry

    def _state_name(self, hint: str) -> str:
        base = re.sub(r"\W+", "_", hint).strip("_") or "state"
        taken = {h.name for h in self.held.values()} | {c.name for c in self.carried.values()}
        name, number = f"state_{base}", 1
        while name in taken:
            number += 1
            name = f"state_{base}_{number}"
        return name

    def _input(self) -> None:
        tensor = self.a.graph.input
        if tensor not in self._requests:
            return
        if self.known:
            self._answer(tensor, f"{tensor}_known", tuple(range(self.a.graph.window - 1)))
        else:
            fresh = tuple(sorted(self.a.flow(tensor).fresh))
            self._answer(tensor, newest_name(tensor), fresh)

    def _static(self, node: Node) -> None:
        """Copy a node whose value depends on the batch size alone."""
        if node.op == "BatchShape":
            outputs = [self._batch_shape(node.attrs["dims"], node.attrs["scalar"])]
        else:
            inputs = [self.take(i) if i else "" for i in node.inputs]
            outputs = self.nodes_of(node.op, inputs, node.attrs, node.outputs, node.domain)
        for tensor, name in zip(node.outputs, outputs, strict=True):
            for request in self._requests.get(tensor, {}).values():
                self._bind(request, name)

    def _batch_shape(self, dims: Shape, scalar: bool) -> str:
        source = f"{self.a.graph.input}_known" if self.known else newest_name(self.a.graph.input)
        batch = self.node("Shape", [source])
        batch = self.pick(batch, 0, (0,), 99)
        factors = np.array([max(0, -d) for d in dims], np.int64)
        rest = np.array([max(0, d) for d in dims], np.int64)
        value = self.node("Mul", [batch, self.constant(factors)])
        value = self.node("Add", [value, self.constant(rest)])
        return self.reshape(value, ()) if scalar else value


def dtype_name(code: int) -> str:
    """NumPy's name of an ONNX element type."""
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(code)))
