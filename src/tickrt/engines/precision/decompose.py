"""LSTM, GRU and RNN nodes rewritten as MatMul cells, one per time step.

Entry point: `decompose_recurrent`. Quantisation and mixed precision work on MatMul and element-wise
nodes; the fused ONNX operators hide those. The product of all rows with the input weights is one
MatMul outside the recurrence; each step keeps one MatMul with the recurrent weights.

Invariants: outputs are those of the ONNX operator to float rounding (gate orders and equations of
the ONNX operator specification, opset 14). Node names are ``<node>/…``; those that carry the cell
state contain ``/cell``, so that ``--keep cell`` finds them.

Known limits: the number of time steps must be known and at most `STEPS_MAX`; sequence lengths,
peepholes, clipping and other activations than the defaults are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tickrt.engines.graph.cells import ACTIVATIONS, GATES, lstm_cell
from tickrt.engines.graph.interface import Array
from tickrt.engines.graph.load import name_nodes
from tickrt.engines.graph.order import live, reads_of
from tickrt.errors import PrecisionError

__all__ = ["STEPS_MAX", "decompose_recurrent"]

STEPS_MAX: Final = 512
_DIRECTIONS: Final = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass
class _Writer:
    """Collects the nodes and constants that replace one recurrent node."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def const(self, name: str, value: Any) -> str:
        full = f"{self.prefix}/{name}"
        if all(constant.name != full for constant in self.constants):
            self.constants.append(numpy_helper.from_array(np.array(value, order="C"), full))
        return full

    def op(self, kind: str, name: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        full = f"{self.prefix}/{name}"
        outs = [full if outputs == 1 else f"{full}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outs, name=full, **attributes))
        return outs[0] if outputs == 1 else outs

    def split(self, name: str, x: str, *sizes: int) -> Any:
        lengths = self.const("split_" + "_".join(map(str, sizes)), np.array(sizes, np.int64))
        return self.op("Split", name, x, lengths, outputs=len(sizes), axis=-1)


@dataclass(frozen=True)
class _Step:
    """Writes the operators of one time step: a `graph.cells.CellWriter`."""

    out: _Writer
    prefix: str

    def add(self, kind: str, label: str, *inputs: str) -> str:
        return str(self.out.op(kind, f"{self.prefix}/{label}", *inputs))

    def cut(self, label: str, tensor: str, sizes: list[int]) -> list[str]:
        parts: list[str] = self.out.split(f"{self.prefix}/{label}", tensor, *sizes)
        return parts


@dataclass(frozen=True)
class _Node:
    """A recurrent node's parts; arrays as in the ONNX specification."""

    kind: str
    hidden: int
    steps: int
    directions: tuple[bool, ...]  # True: backward in time
    w: Array  # [D, G·H, F]
    r: Array  # [D, G·H, H]
    b: Array  # [D, 2·G·H]
    linear_before_reset: bool


def _refuse(node: NodeProto, what: str) -> PrecisionError:
    return PrecisionError(
        f"layer {node.name!r} ({node.op_type}): {what}; keep it in its own type "
        f"with --keep '{node.name}', or build with --precision fp32 or fp16"
    )


def _read(
    node: NodeProto, constants: dict[str, Array], shapes: dict[str, list[int | None]]
) -> _Node:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = list(node.input) + [""] * (8 - len(node.input))
    direction = attributes.get("direction", b"forward").decode()
    directions = _DIRECTIONS[direction]
    count = len(directions)
    activations = tuple(a.decode() for a in attributes.get("activations", []))
    if activations and activations != ACTIVATIONS[node.op_type] * count:
        raise _refuse(node, f"activations {', '.join(activations)} cannot be decomposed")
    for name in ("clip", "input_forget", "layout"):
        if attributes.get(name):
            raise _refuse(node, f"attribute {name!r} cannot be decomposed")
    if inputs[4] or (node.op_type == "LSTM" and inputs[7]):
        raise _refuse(node, "sequence lengths and peepholes cannot be decomposed")
    if any(name not in constants for name in inputs[1:3]) or (inputs[3] not in {*constants, ""}):
        raise _refuse(node, "its weights are computed, not constant")
    steps = (shapes.get(inputs[0]) or [None])[0]
    if steps is None:
        raise _refuse(node, "the number of time steps is not fixed in the model")
    if not 0 < steps <= STEPS_MAX:
        raise _refuse(node, f"{steps} time steps; at most {STEPS_MAX} can be unrolled")
    w, r = constants[inputs[1]], constants[inputs[2]]
    zeros = np.zeros((count, 2 * w.shape[1]), w.dtype)
    return _Node(
        node.op_type,
        r.shape[2],
        steps,
        directions,
        w,
        r,
        constants[inputs[3]] if inputs[3] else zeros,
        bool(attributes.get("linear_before_reset", 0)),
    )


def _lstm_step(
    out: _Writer, n: _Node, t: str, xw: str, h: str | None, c: str | None, d: int
) -> tuple[str, str]:
    """The recurrent product, then the cell."""
    gates = xw
    if h is not None:
        r = out.const(f"r{d}", n.r[d].T)
        gates = out.op("Add", f"{t}/gates", xw, out.op("MatMul", f"{t}/recurrent", h, r))
    return lstm_cell(_Step(out, t), gates, c, n.hidden)


def _gru_step(out: _Writer, n: _Node, t: str, xw: str, h: str | None, d: int) -> str:
    """z, r, h gates: h' = (1 − z)·g + z·h; g per `linear_before_reset`."""
    size = n.hidden
    xzr, xg = out.split(f"{t}/split", xw, 2 * size, size)
    rb = n.b[d][5 * size :]  # the recurrent bias of g; the others were added to xw
    bias = out.const(f"rb{d}", rb)
    if h is None:
        z, r = out.split(f"{t}/zr", out.op("Sigmoid", f"{t}/sigmoid", xzr), size, size)
        inner = out.op("Mul", f"{t}/reset", r, bias) if n.linear_before_reset else bias
    else:
        wide = out.const(f"r_zr{d}", n.r[d][: 2 * size].T)
        rg = out.const(f"r_g{d}", n.r[d][2 * size :].T)
        zr = out.op("Add", f"{t}/gates", xzr, out.op("MatMul", f"{t}/recurrent", h, wide))
        z, r = out.split(f"{t}/zr", out.op("Sigmoid", f"{t}/sigmoid", zr), size, size)
        if n.linear_before_reset:
            inner = out.op("Add", f"{t}/inner", out.op("MatMul", f"{t}/candidate", h, rg), bias)
            inner = out.op("Mul", f"{t}/reset", r, inner)
        else:
            rh = out.op("Mul", f"{t}/reset", r, h)
            inner = out.op("Add", f"{t}/inner", out.op("MatMul", f"{t}/candidate", rh, rg), bias)
    g = out.op("Tanh", f"{t}/tanh", out.op("Add", f"{t}/sum", xg, inner))
    one = out.const("one", np.array(1, n.w.dtype))
    mixed = out.op("Mul", f"{t}/cell_new", out.op("Sub", f"{t}/cell_gate", one, z), g)
    if h is None:
        return str(mixed)
    return str(out.op("Add", f"{t}/cell", mixed, out.op("Mul", f"{t}/cell_keep", z, h)))


def _rnn_step(out: _Writer, n: _Node, t: str, xw: str, h: str | None, d: int) -> str:
    if h is not None:
        r = out.const(f"r{d}", n.r[d].T)
        xw = out.op("Add", f"{t}/gates", xw, out.op("MatMul", f"{t}/recurrent", h, r))
    return str(out.op("Tanh", f"{t}/tanh", xw))


def _direction(
    out: _Writer, n: _Node, d: int, x: str, h: str | None, c: str | None
) -> tuple[list[str], str | None]:
    """All steps of one direction; hidden states in time order, and the last cell state."""
    gates = GATES[n.kind] * n.hidden
    bias = n.b[d][:gates].copy()
    shared = 2 * n.hidden if n.kind == "GRU" else gates  # GRU's g has its recurrent bias apart
    bias[:shared] += n.b[d][gates : gates + shared]
    xw = out.op("MatMul", f"d{d}/input", x, out.const(f"w{d}", n.w[d].T))
    xw = out.op("Add", f"d{d}/bias", xw, out.const(f"b{d}", bias))
    hidden: list[str] = [""] * n.steps
    order = range(n.steps - 1, -1, -1) if n.directions[d] else range(n.steps)
    for step in order:
        t = f"d{d}/t{step}"
        row = out.op("Gather", f"{t}/row", xw, out.const(f"i{step}", np.int64(step)), axis=0)
        if n.kind == "LSTM":
            h, c = _lstm_step(out, n, t, row, h, c, d)
        elif n.kind == "GRU":
            h = _gru_step(out, n, t, row, h, d)
        else:
            h = _rnn_step(out, n, t, row, h, d)
        hidden[step] = h
    return hidden, c


def _replace(node: NodeProto, n: _Node) -> _Writer:
    out = _Writer(node.name)
    inputs = list(node.input) + [""] * (8 - len(node.input))
    zero = out.const("axis0", np.array([0], np.int64))
    all_hidden: list[list[str]] = []
    cells: list[str] = []
    for d in range(len(n.directions)):
        index = out.const(f"d{d}", np.int64(d))
        h = c = None
        if inputs[5]:
            h = out.op("Gather", f"d{d}/h0", inputs[5], index, axis=0)
        if n.kind == "LSTM" and inputs[6]:
            c = out.op("Gather", f"d{d}/cell0", inputs[6], index, axis=0)
        hidden, cell = _direction(out, n, d, inputs[0], h, c)
        all_hidden.append(hidden)
        cells.append(cell or "")
    names = list(node.output) + [""] * (3 - len(node.output))
    both = range(len(n.directions))
    if names[0]:
        rows = []
        for step in range(n.steps):
            parts = [out.op("Unsqueeze", f"y{step}_{d}", all_hidden[d][step], zero) for d in both]
            row = parts[0] if len(parts) == 1 else out.op("Concat", f"y{step}", *parts, axis=0)
            rows.append(out.op("Unsqueeze", f"y{step}_row", row, zero))
        out.nodes.append(helper.make_node("Concat", rows, [names[0]], f"{node.name}/y", axis=0))
    ends = [hidden[0 if n.directions[d] else -1] for d, hidden in enumerate(all_hidden)]
    for name, label, tensors in ((names[1], "y_h", ends), (names[2], "cell_out", cells)):
        if name:
            parts = [out.op("Unsqueeze", f"{label}{d}", tensors[d], zero) for d in both]
            full = f"{node.name}/{label}"
            out.nodes.append(helper.make_node("Concat", parts, [name], full, axis=0))
    return out


def decompose_recurrent(model: ModelProto, skip: frozenset[str] = frozenset()) -> ModelProto:
    """Rewrite every LSTM, GRU and RNN node into MatMul cells.

    Args:
        model: any ONNX model, opset 13 to 17.
        skip: names of nodes that stay as they are.

    Returns:
        a new model; the same one renamed where there is nothing to rewrite.

    Raises:
        PrecisionError: a node uses something that cannot be decomposed; names the layer.
    """
    model = name_nodes(model)
    targets = {
        node.name for node in model.graph.node if node.op_type in GATES and node.name not in skip
    }
    if not targets:
        return model
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes: dict[str, list[int | None]] = {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in (*inferred.input, *inferred.value_info)
    }
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.name not in targets:
            nodes.append(node)
            continue
        written = _replace(node, _read(node, constants, shapes))
        nodes.extend(written.nodes)
        model.graph.initializer.extend(written.constants)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.value_info[:]
    _drop_unused(model)
    return model


def _drop_unused(model: ModelProto) -> None:
    """Remove dead nodes and constants (an unused Y, the fused weights)."""
    outputs = [value.name for value in model.graph.output]
    kept, needed = live(model.graph.node, outputs, reads_of, lambda node: node.output)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    constants = [
        TensorProto.FromString(t.SerializeToString())
        for t in model.graph.initializer
        if t.name in needed
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
