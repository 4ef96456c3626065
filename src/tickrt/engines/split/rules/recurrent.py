"""LSTM, GRU and RNN.

A forward layer carries its state: `pre` runs it over the known steps, `step` over the fresh ones.
Where only one step is fresh, that step is written out as one Gemm and element-wise operators, and
the recurrent half of the gates, R·h plus the biases, is part of the state: it does not depend on
the newest row, so it is computed off the path. A reverse layer depends on everything, but its
output at the last position is its first step.

Equations: ONNX operator specification of LSTM, GRU and RNN, opset 14.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np

from tickrt.engines.graph.cells import ACTIVATIONS, lstm_cell
from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule
from tickrt.engines.split.graph import Array, Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.base import register, touched_any, without_columns


class Weights(NamedTuple):
    """W [G·H, I], R [G·H, H] and the two biases [G·H]; G gates."""

    w: Array
    r: Array
    input_bias: Array
    hidden_bias: Array

    @property
    def hidden(self) -> int:
        """H."""
        return int(self.r.shape[1])


class State(NamedTuple):
    """h [batch, H], and the LSTM's c."""

    h: str
    c: str = ""


class Recurrent(Rule):
    """What the three layers share; a subclass writes out one step."""

    plain_attrs = frozenset({"direction", "hidden_size", "activations"})

    def flow(self, a: Analysis, node: Node) -> list[Flow] | str:
        if node.attrs.get("layout", 0):
            return "layout=1 (batch first) inside the operator"
        if node.input(4):
            return "sequence_lens"
        if touched_any(a, node.inputs[1:]):
            return "its weights or its start state depend on the newest row"
        flow = without_columns(a, node.inputs[0])
        if flow.axis != 0:
            return "its steps are not along time"
        rest = Flow(None, frozenset({0} if flow.fresh else ()))
        steps = a.graph.shapes[node.inputs[0]][0]
        if not flow.fresh:
            return [Flow(0, frozenset()), rest, rest]
        if node.attrs["direction"] == "reverse":
            return [Flow(0, frozenset(range(max(flow.fresh) + 1))), rest, rest]
        if node.attrs["direction"] != "forward":
            return "both directions in one operator, with weights that are not constant"
        return [Flow(0, frozenset(range(min(flow.fresh), steps))), rest, rest]

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        steps = out.a.graph.shapes[node.inputs[0]][0]
        span = self._span(node, wants, steps)
        if out.known or node.attrs["direction"] == "reverse":
            return self._native(out, node, wants, span, None)
        first = min(out.a.flow(node.inputs[0]).fresh)
        if first == 0:
            return self._native(out, node, wants, span, None)
        span = range(first, span[-1] + 1)
        if self.written_out(out.a, node):
            state = self._one_step(out, node)
            return self._outputs(out, node, state)
        state = State(*(self._carry(out, node, key) for key in self._native_keys()))
        return self._native(out, node, wants, span, state)

    def carry(
        self, out: GraphBuilder, node: Node, wants: dict[str, Positions], keys: list[str]
    ) -> dict[str, str]:
        first = min(out.a.flow(node.inputs[0]).fresh)
        names = self._operator(out, node, range(first), None)
        hidden = out.a.graph.shapes[node.inputs[2]][2]
        state = State(*(out.reshape(n, (-1, hidden)) for n in names[1:]))
        if self.written_out(out.a, node):
            outputs = self.recurrent_half(out, node, state)
        else:
            outputs = dict(zip(self._native_keys(), state, strict=False))
        for output, positions in wants.items():
            outputs[output] = out.pick(names[0], 0, positions, first)
        return outputs

    def following(self, out: GraphBuilder, node: Node, keys: list[str]) -> dict[str, str]:
        if not self.written_out(out.a, node):
            span = range(*self._one(out.a, node))
            start = State(*(self._carry(out, node, key) for key in self._native_keys()))
            names = self._operator(out, node, span, start)
            hidden = out.a.graph.shapes[node.inputs[2]][2]
            after = [out.reshape(n, (-1, hidden)) for n in names[1:]]
            return dict(zip(self._native_keys(), after, strict=False))
        return self.recurrent_half(out, node, self._one_step(out, node))

    def start(self, a: Analysis, node: Node) -> dict[str, Array]:
        """The carried state before the first row, each [1, width]."""
        weights = self.weights(a, node)
        states = []
        for index in (5, 6):
            value = np.zeros((1, weights.hidden), weights.w.dtype)
            if node.input(index):
                value = a.graph.constants[node.inputs[index]][0]
            states.append(value)
        return self.start_from(node, weights, states[0], states[1])

    # One step, written out -------------------------------------------------------------------

    @abstractmethod
    def cell(self, out: GraphBuilder, node: Node, row: str, weights: Weights) -> State:
        """One step from `row` [batch, I] and the carried state."""

    @abstractmethod
    def recurrent_half(self, out: GraphBuilder, node: Node, state: State) -> dict[str, str]:
        """The carried state from h and c: everything of the next step that needs no row."""

    @abstractmethod
    def start_from(self, node: Node, weights: Weights, h: Array, c: Array) -> dict[str, Array]:
        """`recurrent_half` in NumPy."""

    def _one_step(self, out: GraphBuilder, node: Node) -> State:
        key = f"cell/{node.name}"
        if key not in out.memo:
            last = out.a.graph.shapes[node.inputs[0]][0] - 1
            weights = self.weights(out.a, node)
            row = out.reshape(out.take(node.inputs[0], (last,)), (-1, weights.w.shape[1]))
            out.memo[key] = self.cell(out, node, row, weights)
        state: State = out.memo[key]
        return state

    def weights(self, a: Analysis, node: Node) -> Weights:
        """The layer's constants without the direction axis."""
        w, r = (a.graph.constants[node.inputs[i]][0] for i in (1, 2))
        bias = np.zeros(2 * len(w), w.dtype)
        if node.input(3):
            bias = a.graph.constants[node.inputs[3]][0]
        return Weights(w, r, bias[: len(w)], bias[len(w) :])

    def gates(self, out: GraphBuilder, row: str, weight: Array, addend: str) -> str:
        """row · weightᵀ + addend; in `advance` one row meets a bank of states, so not as a Gemm."""
        if not out.frozen_states:
            return out.node("Gemm", [row, out.constant(weight.T), addend])
        return out.node("Add", [out.node("MatMul", [row, out.constant(weight.T)]), addend])

    def hidden_gemm(self, out: GraphBuilder, h: str, weight: Array, bias: Array) -> str:
        """h · weightᵀ + bias."""
        return out.node("Gemm", [h, out.constant(weight.T), out.constant(bias)])

    def carried(self, out: GraphBuilder, node: Node, key: str, width: int) -> str:
        """A carried tensor [batch, width]."""
        graph = out.a.graph
        batch = graph.shapes[node.inputs[0]][1]
        dtype = graph.dtypes[node.inputs[0]]
        return out.carry(node, key, dtype, (batch, width), recurrent=True)

    def written_out(self, a: Analysis, node: Node) -> bool:
        """True when `step` has one step of a plain forward layer, written out."""
        if not a.touched(node.outputs[0] or node.inputs[0]):
            return False
        if node.attrs["direction"] != "forward":
            return False
        first = min(a.flow(node.inputs[0]).fresh)
        return (
            first == a.graph.shapes[node.inputs[0]][0] - 1
            and not node.input(7)
            and not (set(node.attrs) - self.plain_attrs)
            and self.activations(node) == ACTIVATIONS[node.op]
            and all(node.inputs[i] in a.graph.constants for i in (1, 2, 3) if node.input(i))
        )

    def activations(self, node: Node) -> tuple[str, ...]:
        """Names of the layer's activations."""
        names = node.attrs.get("activations")
        if not names:
            return ACTIVATIONS[node.op]
        return tuple(n.decode() if isinstance(n, bytes) else n for n in names)

    # The operator as it is -------------------------------------------------------------------

    def _one(self, a: Analysis, node: Node) -> tuple[int, int]:
        steps = a.graph.shapes[node.inputs[0]][0]
        return min(a.flow(node.inputs[0]).fresh), steps

    def _native_keys(self) -> tuple[str, ...]:
        return ("h",)

    def _carry(self, out: GraphBuilder, node: Node, key: str) -> str:
        return self.carried(out, node, key, out.a.graph.shapes[node.inputs[2]][2])

    def _span(self, node: Node, wants: dict[str, Positions], steps: int) -> range:
        """Steps to run, from the first for a forward layer, to the last for a reverse one."""
        whole = any(o in wants for o in node.outputs[1:] if o)
        y = wants.get(node.outputs[0], ())
        if node.attrs["direction"] == "reverse":
            return range(0 if whole else min(y), steps)
        return range(steps if whole else max(y) + 1)

    def _operator(
        self, out: GraphBuilder, node: Node, span: range, start: State | None
    ) -> list[str]:
        """The operator over `span`; names of Y, Y_h and, for an LSTM, Y_c."""
        inputs = [out.take(node.inputs[0], tuple(span))]
        inputs += [out.take(i) if i else "" for i in node.inputs[1:4]]
        inputs += ["", *(out.take(i) if i else "" for i in node.inputs[5:])]
        if start is not None:
            inputs = inputs[:5]
            inputs += [out.node("Unsqueeze", [n, out.constant(np.array([0]))]) for n in start if n]
            inputs += [out.take(i) for i in node.inputs[7:] if i]
        while not inputs[-1]:
            inputs.pop()
        outputs = ["Y", "Y_h", *(["Y_c"] if node.op == "LSTM" else [])]
        return out.nodes_of(node.op, inputs, node.attrs, [f"{node.name}/{o}" for o in outputs])

    def _native(
        self,
        out: GraphBuilder,
        node: Node,
        wants: dict[str, Positions],
        span: range,
        start: State | None,
    ) -> dict[str, str]:
        names = self._operator(out, node, span, start)
        outputs: dict[str, str] = {}
        for output, name in zip(node.outputs, names, strict=False):
            if output in wants and output == node.outputs[0]:
                indices = tuple(p - span[0] for p in wants[output])
                outputs[output] = out.pick(name, 0, indices, len(span))
            elif output in wants:
                outputs[output] = name
        return outputs

    def _outputs(self, out: GraphBuilder, node: Node, state: State) -> dict[str, str]:
        hidden = out.a.graph.shapes[node.inputs[2]][2]
        outputs: dict[str, Any] = {node.outputs[0]: out.reshape(state.h, (1, 1, -1, hidden))}
        for output, name in zip(node.outputs[1:], state, strict=False):
            if output:
                outputs[output] = out.reshape(name, (1, -1, hidden))
        return outputs


@register("LSTM")
class LSTM(Recurrent):
    """Gates in the order i, o, f, c."""

    def cell(self, out: GraphBuilder, node: Node, row: str, weights: Weights) -> State:
        h = weights.hidden
        recurrent = self.carried(out, node, "gates", 4 * h)
        gates = self.gates(out, row, weights.w, recurrent)
        return State(*lstm_cell(out, gates, self.carried(out, node, "cell", h), h))

    def recurrent_half(self, out: GraphBuilder, node: Node, state: State) -> dict[str, str]:
        weights = self.weights(out.a, node)
        bias = weights.input_bias + weights.hidden_bias
        return {"gates": self.hidden_gemm(out, state.h, weights.r, bias), "cell": state.c}

    def start_from(self, node: Node, weights: Weights, h: Array, c: Array) -> dict[str, Array]:
        return {"gates": h @ weights.r.T + weights.input_bias + weights.hidden_bias, "cell": c}

    def _native_keys(self) -> tuple[str, ...]:
        return ("h", "c")


@register("GRU")
class GRU(Recurrent):
    """Gates in the order z, r, h; linear_before_reset as PyTorch has it, and without."""

    plain_attrs = Recurrent.plain_attrs | {"linear_before_reset"}

    def cell(self, out: GraphBuilder, node: Node, row: str, weights: Weights) -> State:
        h = weights.hidden
        hidden = self.carried(out, node, "hidden", h)
        gates = self.gates(out, row, weights.w[: 2 * h], self.carried(out, node, "gates", 2 * h))
        z, r = out.cut("zr", out.node("Sigmoid", [gates]), [h, h])
        if node.attrs.get("linear_before_reset", 0):
            bias = weights.input_bias[2 * h :]
            reset = out.node("Mul", [r, self.carried(out, node, "candidate", h)])
        else:
            bias = weights.input_bias[2 * h :] + weights.hidden_bias[2 * h :]
            recurrent = out.constant(weights.r[2 * h :].T)
            reset = out.node("MatMul", [out.node("Mul", [r, hidden]), recurrent])
        candidate = self.hidden_gemm(out, row, weights.w[2 * h :], bias)
        candidate = out.node("Tanh", [out.node("Add", [candidate, reset])])
        keep = out.node("Mul", [z, out.node("Sub", [hidden, candidate])])
        return State(out.node("Add", [candidate, keep]))

    def recurrent_half(self, out: GraphBuilder, node: Node, state: State) -> dict[str, str]:
        carried = {"hidden": state.h}
        for key, (matrix, bias) in self._halves(node, self.weights(out.a, node)).items():
            carried[key] = self.hidden_gemm(out, state.h, matrix, bias)
        return carried

    def start_from(self, node: Node, weights: Weights, h: Array, c: Array) -> dict[str, Array]:
        halves = self._halves(node, weights)
        return {"hidden": h, **{key: h @ m.T + bias for key, (m, bias) in halves.items()}}

    def _halves(self, node: Node, weights: Weights) -> dict[str, tuple[Array, Array]]:
        """R and bias of each carried product with h."""
        size = 2 * weights.hidden
        bias = weights.input_bias + weights.hidden_bias
        halves = {"gates": (weights.r[:size], bias[:size])}
        if node.attrs.get("linear_before_reset", 0):
            halves["candidate"] = (weights.r[size:], weights.hidden_bias[size:])
        return halves


@register("RNN")
class RNN(Recurrent):
    """One gate."""

    def cell(self, out: GraphBuilder, node: Node, row: str, weights: Weights) -> State:
        recurrent = self.carried(out, node, "gates", weights.hidden)
        return State(out.node("Tanh", [self.gates(out, row, weights.w, recurrent)]))

    def recurrent_half(self, out: GraphBuilder, node: Node, state: State) -> dict[str, str]:
        weights = self.weights(out.a, node)
        bias = weights.input_bias + weights.hidden_bias
        return {"gates": self.hidden_gemm(out, state.h, weights.r, bias)}

    def start_from(self, node: Node, weights: Weights, h: Array, c: Array) -> dict[str, Array]:
        return {"gates": h @ weights.r.T + weights.input_bias + weights.hidden_bias}
