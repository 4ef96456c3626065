"""`advance`: states from the last states and the newest row, off the path.

Under window semantics every window starts from the start state, so the state that the next `step`
needs cannot be had from the last one: it has one row too many at its beginning. The *bank* keeps
T−1 staggered states instead: slot j has seen the newest j+1 rows. A new row moves every slot on by
one, all in one batched step, and the last slot is what the next `step` needs. It is one matrix
product of T−1 rows per layer where `pre` makes T−1 products one after another.

With carried state (`stateful`) there is one state, and `advance` gives the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tickrt.engines.split.dependence import Analysis
from tickrt.engines.split.finish import Port, finish
from tickrt.engines.split.graph import Array, Node
from tickrt.engines.split.graph_builder import GraphBuilder
from tickrt.engines.split.rules.recurrent import Recurrent
from tickrt.errors import SplitError

__all__ = ["Bank", "build_bank", "build_carry"]


@dataclass(frozen=True, eq=False)
class Bank:
    """One tensor of the bank, [T−1, width]: read as `name`, put out as `following`; the last slot
    is also put out as `state`. `start` is its value before the first row, float32 [T−1, width]."""

    state: str
    name: str
    following: str
    start: Array


def build_carry(a: Analysis, step: GraphBuilder, row: Port, states: list[Port]) -> onnx.ModelProto:
    """(states, newest row) → states after it, ``NAME_next``, for a stateful model.

    Raises:
        SplitError: a state has no successor that the states hold.
    """
    out = GraphBuilder(
        a, known=False, held=dict(step.held), carried=step.carried, frozen_states=True
    )
    answers: dict[str, str] = {}
    for held in step.held.values():
        if a.flow(held.tensor).axis is None:
            raise SplitError(f"{held.tensor!r} is known but has no time axis: it cannot be carried")
        shifted = tuple(p + 1 for p in held.positions)
        answers[out.next_name(held.name)] = out.take(held.tensor, shifted)
    nodes = out.run(following=True)
    for carried in step.carried.values():
        name = out.next_name(carried.name)
        answers[name] = name
    outputs = [Port(out.next_name(p.name), p.dtype, p.shape) for p in states]
    answers = {name: out.resolve(n) for name, n in answers.items()}
    return finish(a.graph, "advance", nodes, out.constants, [row, *states], outputs, answers).model


def build_bank(
    a: Analysis, step: GraphBuilder, row: Port, states: list[Port]
) -> tuple[onnx.ModelProto, tuple[Bank, ...]]:
    """(bank, newest row) → (next bank, states for `step`), for one stream.

    Raises:
        SplitError: the model has states that are not recurrent, or rows that depend on their place
            in the window before they reach a recurrent layer.
    """
    if not step.carried or not all(c.recurrent for c in step.carried.values()) or step.held:
        raise SplitError("only recurrent states can be advanced row by row")
    starts = _starts(a)
    if not all((c.node, c.key) in starts for c in step.carried.values()):
        raise SplitError("a recurrent layer has several fresh steps, or unusual activations")
    if a.graph.shapes[a.graph.input][0] != -1:
        raise SplitError("the batch is fixed: the slots of the bank cannot be put into it")
    _check_row_wise(a)
    slots = a.graph.window - 1
    out = GraphBuilder(a, known=False, carried=step.carried, frozen_states=True)
    nodes = out.run(following=True)
    if out.time_varying:
        raise SplitError("rows depend on their place in the window before a recurrent layer")
    bank: list[Bank] = []
    before: list[Node] = []
    after: list[Node] = []
    inputs = [Port(row.name, row.dtype, (1, *row.shape[1:]))]
    outputs: list[Port] = []
    answers: dict[str, str] = {}
    last = out.constant(np.array([slots - 1], np.int64))
    axes = out.constant(np.array([0], np.int64))
    end = out.constant(np.array([slots], np.int64))
    for port in states:
        carried = next(c for c in step.carried.values() if c.name == port.name)
        start = starts[carried.node, carried.key]
        entry = Bank(
            port.name, f"{port.name}_bank", f"{port.name}_bank_next", np.repeat(start, slots, 0)
        )
        bank.append(entry)
        shape = (slots, *port.shape[1:])
        first = out.constant(start)
        kept = entry.name
        if slots > 1:
            before.append(Node("Slice", [entry.name, axes, last, axes], [f"{entry.name}/kept"]))
            kept = f"{entry.name}/kept"
            before.append(Node("Concat", [first, kept], [port.name], {"axis": 0}))
        else:
            before.append(Node("Identity", [first], [port.name]))
        inner = out.resolve(out.next_name(port.name))
        after.append(Node("Slice", [inner, last, end, axes], [f"{entry.name}/last"]))
        inputs.append(Port(entry.name, port.dtype, shape))
        outputs += [Port(entry.following, port.dtype, shape)]
        answers[entry.following] = inner
        answers[f"{port.name}_ready"] = f"{entry.name}/last"
        outputs.append(Port(f"{port.name}_ready", port.dtype, (1, *port.shape[1:])))
    built = finish(
        a.graph, "advance", before + nodes + after, out.constants, inputs, outputs, answers
    )
    model = built.model
    return _public(model, {f"{b.state}_ready": b.state for b in bank}), tuple(bank)


def _public(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Swap inner names for public ones: states come out under the names that `step` reads."""
    inner = {public: f"{public}/rows" for public in names.values()}
    table = {**inner, **names}
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [table.get(n, n) for n in field]
    for entry in model.graph.output:
        entry.name = table.get(entry.name, entry.name)
    return model


def _check_row_wise(a: Analysis) -> None:
    """Every step of every recurrent layer must be a function of one row, the same for all places.

    Raises:
        SplitError: an operator before a recurrent layer moves, mixes or drops positions.
    """
    needed: set[str] = set()
    for node in reversed(a.graph.nodes):
        rule = a.rules.get(node.outputs[0])
        recurrent = isinstance(rule, Recurrent) and any(a.touched(o) for o in node.outputs)
        if rule is None or not (recurrent or needed.intersection(node.outputs)):
            continue
        if recurrent:
            needed.add(node.inputs[0])
        else:
            needed.update(i for i in node.inputs if not a.graph.is_static(i))
        for tensor in {node.inputs[0], node.outputs[0]} - set(a.graph.constants):
            flow = a.flow(tensor)
            whole = flow.axis is not None and len(a.positions(tensor)) == a.graph.window
            moved = flow.axis in node.attrs.get("picks", {}) or node.op in ("Pad", "CumSum")
            joined = node.op == "Concat" and node.attrs["axis"] % a.graph.rank(tensor) == flow.axis
            if not whole or flow.fresh != {a.graph.window - 1} or moved or joined:
                raise SplitError(
                    f"{node.op} {node.name!r} before a recurrent layer is not row-wise"
                )


def _starts(a: Analysis) -> dict[tuple[str, str], Array]:
    starts: dict[tuple[str, str], Array] = {}
    for node in a.graph.nodes:
        rule = a.rules.get(node.outputs[0])
        if not isinstance(rule, Recurrent) or not rule.written_out(a, node):
            continue
        for index in (5, 6):
            value = a.graph.constants.get(node.input(index))
            if node.input(index) and (value is None or value.shape[1] != 1):
                raise SplitError(
                    f"{node.op} {node.name!r} starts from a state that is not constant"
                )
        for key, start in rule.start(a, node).items():
            starts[node.outputs[0], key] = np.ascontiguousarray(start)
    return starts
