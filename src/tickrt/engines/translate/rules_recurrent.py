"""LSTM, GRU and RNN over one or many positions.

The products of all positions with the input weights are one operation before the recurrence; each
position then adds its recurrent product and runs the cell.

Source: ONNX operator specification, opset 14. Not here: sequence lengths, peepholes, clipping,
other activations than the defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tickrt.engines.graph.cells import ACTIVATIONS, GATES
from tickrt.engines.translate.builder import Body, ProgramBuilder, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.rules_linear import linear
from tickrt.engines.translate.tensors import Tensor
from tickrt.program import Move

__all__ = ["RULES"]

_BACKWARD = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class _State:
    """[B, H] before and after a position; the same tensor where positions are repeated."""

    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class _Layer:
    """One direction of a node: recurrent weights [H, G·H], their bias [1, G·H] or None."""

    hidden: int
    recurrent: Tensor
    bias_recurrent: Tensor | None
    h: _State
    cell: _State | None


def _refuse(c: NodeContext, kind: str) -> None:
    count = len(_BACKWARD[c.text("direction", "forward")])
    listed = tuple(a.decode() for a in c.attributes.get("activations", []))
    if listed and listed != ACTIVATIONS[kind] * count:
        raise TranslateError(f"activations {', '.join(listed)}")
    for name in ("clip", "input_forget", "layout"):
        if c.attributes.get(name):
            raise TranslateError(f"attribute {name!r}")
    if c.has(4) or c.has(7):
        raise TranslateError("sequence lengths or peepholes")


def _cut(x: Tensor, part: int, hidden: int, count: int = 1) -> Tensor:
    return x.cut(1, part * hidden, hidden * count)


def _lstm_cell(b: ProgramBuilder, layer: _Layer, gates: Tensor) -> None:
    """Gates [B, 4·H] in the order i, o, f, g."""
    n, cell = layer.hidden, layer.cell
    assert cell is not None

    def new_cell(body: Body, x: list[int]) -> int:
        i, f, g, old = x
        kept = body.add("mul", body.add("sigmoid", f), old)
        return body.add("add", kept, body.add("mul", body.add("sigmoid", i), body.add("tanh", g)))

    def new_hidden(body: Body, x: list[int]) -> int:
        return body.add("mul", body.add("sigmoid", x[0]), body.add("tanh", x[1]))

    parts = [_cut(gates, k, n) for k in (0, 2, 3)]
    b.map([*parts, cell.before], new_cell, cell.after)
    b.map([_cut(gates, 1, n), cell.after], new_hidden, layer.h.after)


def _gru_hidden(body: Body, z: int, candidate: int, old: int) -> int:
    """(1 − z)·candidate + z·old"""
    update = body.add("sigmoid", z)
    kept = body.add("mul", update, old)
    new = body.add("mul", body.add("sub", body.value(1.0), update), body.add("tanh", candidate))
    return body.add("add", new, kept)


def _gru(b: ProgramBuilder, layer: _Layer, x: Tensor, before_reset: bool) -> None:
    """x [B, 3·H]: the input's products, in the order z, r, h; biases are added here."""
    n, h, batch = layer.hidden, layer.h.before, x.shape[0]
    recurrent = b.tensor((batch, 3 * n))
    columns = 3 if before_reset else 2
    weights = layer.recurrent.cut(1, 0, columns * n)
    start = None if layer.bias_recurrent is None else layer.bias_recurrent.cut(1, 0, columns * n)
    linear(b, h, weights, recurrent.cut(1, 0, columns * n), start)
    if before_reset:

        def body(body: Body, i: list[int]) -> int:
            z, r = body.add("add", i[0], i[3]), body.add("add", i[1], i[4])
            kept = body.add("mul", body.add("sigmoid", r), i[5])
            return _gru_hidden(body, z, body.add("add", i[2], kept), i[6])

        parts = [_cut(t, k, n) for t in (x, recurrent) for k in range(3)]
        b.map([*parts, h], body, layer.h.after)
        return
    reset = b.map(
        [_cut(x, 1, n), _cut(recurrent, 1, n), h],
        lambda body, i: body.add("mul", body.add("sigmoid", body.add("add", i[0], i[1])), i[2]),
    )
    bias = None if layer.bias_recurrent is None else _cut(layer.bias_recurrent, 2, n)
    linear(b, reset, _cut(layer.recurrent, 2, n), _cut(recurrent, 2, n), bias)

    def after(body: Body, i: list[int]) -> int:
        return _gru_hidden(body, body.add("add", i[0], i[2]), body.add("add", i[1], i[3]), i[4])

    parts = [_cut(x, 0, n), _cut(x, 2, n), _cut(recurrent, 0, n), _cut(recurrent, 2, n), h]
    b.map(parts, after, layer.h.after)


def _position(b: ProgramBuilder, kind: str, layer: _Layer, x: Tensor, before_reset: bool) -> None:
    """One position: x [B, G·H] are the input's products."""
    if kind == "GRU":
        _gru(b, layer, x, before_reset)
    else:
        gates = b.tensor(x.shape)
        linear(b, layer.h.before, layer.recurrent, gates, x)
        if kind == "LSTM":
            _lstm_cell(b, layer, gates)
        else:
            b.map([gates], lambda body, i: body.add("tanh", i[0]), layer.h.after)


def _state(
    c: NodeContext, index: int, direction: int, shape: tuple[int, int], after: Tensor | None
) -> _State:
    """Starts as the input says, else at zero; `after`: where one position puts it, None: many."""
    given = c.x(index).pick(0, direction) if c.has(index) else None
    if after is not None:
        return _State(c.b.constant(np.zeros(shape)) if given is None else given, after)
    kept = c.b.tensor(shape)
    if given is None:
        c.b.fill(kept, 0.0)
    else:
        c.b.copy(given, kept)
    return _State(kept, kept)


def _direction(c: NodeContext, kind: str, d: int, backward: bool, y: Tensor) -> list[Tensor]:
    """Runs one direction into y [T, B, H]; its last states."""
    x, hidden, gates = c.x(0), c.integer("hidden_size", 0), GATES[kind]
    steps, batch, _ = x.shape
    width = gates * hidden
    biases: list[Tensor | None] = [None, None]
    if c.has(3):
        bias = c.x(3).cut(0, d, 1)
        biases = [bias.cut(1, 0, width), bias.cut(1, width, width)]
    shape, one = (batch, hidden), steps == 1
    h = _state(c, 5, d, shape, y.pick(0, 0) if one else None)
    cell = _state(c, 6, d, shape, c.b.tensor(shape) if one else None) if kind == "LSTM" else None
    bias_x = biases[0]
    if kind != "GRU" and biases[0] is not None and biases[1] is not None:
        bias_x = c.b.map([biases[0], biases[1]], lambda b, i: b.add("add", i[0], i[1]))
        biases[1] = None
    products = c.b.tensor((steps * batch, width))
    flat = c.b.reshape(x, (steps * batch, x.shape[2]))
    linear(c.b, flat, c.x(1).pick(0, d).transpose([1, 0]), products, bias_x)
    seen = c.b.reshape(products, (steps, batch, width))
    first = steps - 1 if backward else 0
    layer = _Layer(hidden, c.x(2).pick(0, d).transpose([1, 0]), biases[1], h, cell)
    before_reset = bool(c.integer("linear_before_reset", 0))
    if one:
        _position(c.b, kind, layer, seen.pick(0, 0), before_reset)
    else:
        with c.b.repeat(steps) as index:
            turn = -1 if backward else 1
            here = seen.pick(0, first).moved(Move(index, turn * seen.strides[0]))
            _position(c.b, kind, layer, here, before_reset)
            c.b.copy(h.after, y.pick(0, first).moved(Move(index, turn * y.strides[0])))
    return [h.after] if cell is None else [h.after, cell.after]


def _recurrent(c: NodeContext) -> list[Tensor]:
    kind = c.op
    _refuse(c, kind)
    directions = _BACKWARD[c.text("direction", "forward")]
    x, hidden = c.x(0), c.integer("hidden_size", 0)
    steps, batch, _ = x.shape
    y = c.b.tensor((steps, len(directions), batch, hidden))
    lasts = [
        _direction(c, kind, d, backward, y.pick(1, d)) for d, backward in enumerate(directions)
    ]
    outputs = [y]
    for k in range(len(lasts[0])):
        if len(directions) == 1:
            outputs.append(lasts[0][k].insert(0))
            continue
        last = c.b.tensor((len(directions), batch, hidden))
        for d, states in enumerate(lasts):
            c.b.copy(states[k], last.pick(0, d))
        outputs.append(last)
    return outputs[: len(c.node.output)]


RULES: dict[str, Callable[[NodeContext], list[Tensor]]] = {
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "RNN": _recurrent,
}
