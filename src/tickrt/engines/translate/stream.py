"""A model or its split as a program on a stream of rows.

Entry points: `stream_program(model, plan)`; `TranslateError` says what cannot be translated.

    split, `pre`    advance: `pre` over the rows that are known; step: `step`
    split, `bank`   advance: the bank moves on by one row, in place; step: `step`
    split, `carry`  first: `pre`; advance: the states after the newest row; step: `step`
    whole           step: the model over its window

The bank's slots do not move. The state that has seen T−1 rows, which the next step reads, is the
slot of that number modulo T−1; once its row is in, that slot starts anew. So an advance is the same
operation on every slot, in place, and a step reads one slot where it lies.
"""

from __future__ import annotations

import onnx

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.split.plan import BankTensor, SplitPlan
from tickrt.engines.translate.builder import ProgramBuilder, TranslateError
from tickrt.engines.translate.graph import translate_graph
from tickrt.engines.translate.optimise import optimise
from tickrt.engines.translate.tensors import Tensor, row_major
from tickrt.program import Move, StreamProgram
from tickrt.program.check import check
from tickrt.program.ir import OUTPUT, ROWS

__all__ = ["stream_program"]


class _Stream:
    """The buffers that every program has, and the section that is being written."""

    def __init__(self, model: LoopModel) -> None:
        self.model, self.b = model, ProgramBuilder()
        window, width = model.window, model.width
        self.b.buffer(2 * window * width, "rows", ROWS)
        self.b.buffer(model.n_outputs, "output", OUTPUT)
        self.sections: dict[str, tuple] = {}  # type: ignore[type-arg]

    def rows(self, count: int, shift: int) -> Tensor:
        """`count` rows of the ring, [1, count, F]; the first is at ``seq % T + shift``."""
        window, width = self.model.window, self.model.width
        move = Move("seq", width, 0, window)
        shape = (1, count, width)
        return Tensor(ROWS, shift * width, shape, (0, width, 1), (move,))

    def end(self, section: str) -> None:
        self.sections[section] = tuple(self.b.operations)
        self.b.operations = []

    def outputs(self, answers: dict[str, Tensor]) -> None:
        out = answers[self.model.output]
        self.b.copy(self.b.reshape(out, (self.model.n_outputs,)), self.output())

    def output(self) -> Tensor:
        return Tensor(OUTPUT, 0, (self.model.n_outputs,), (1,))

    def program(self, warm: int, idle: int, mode: str) -> StreamProgram:
        facts = {"model": self.model.name, "sha256": self.model.sha256, "mode": mode}
        facts["output"] = self.model.output
        program = StreamProgram(
            self.model.window,
            self.model.width,
            self.model.n_outputs,
            warm,
            idle,
            self.b.buffers,
            self.sections,
            facts,
        )
        return check(optimise(program))


def _graph(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)


def _states(stream: _Stream, plan: SplitPlan) -> dict[str, Tensor]:
    return {name: stream.b.tensor(shape, "state", name) for name, shape in plan.states}


def _write(
    stream: _Stream, answers: dict[str, Tensor], states: dict[str, Tensor], tail: str = ""
) -> None:
    """Store the states that a graph puts out."""
    held = {state.buffer for state in states.values()}
    ready: dict[str, Tensor] = {}
    for name, state in states.items():
        stream.b.label = f"state {name}"
        answer = answers[name + tail]
        # A part of a state that goes into a state must be read before any of them is written.
        moves = answer.buffer in held and answer != state
        ready[name] = stream.b.copy(answer) if moves else answer
    for name, state in states.items():
        if ready[name] != state:
            stream.b.label = f"state {name}"
            stream.b.copy(ready[name], state)


def _before(stream: _Stream, plan: SplitPlan, states: dict[str, Tensor]) -> None:
    """`pre` over the T−1 rows up to `seq`."""
    known = {plan.known: stream.rows(stream.model.window - 1, 2)}
    _write(stream, translate_graph(_graph(plan.pre), stream.b, known), states)


def _step(stream: _Stream, plan: SplitPlan, states: dict[str, Tensor]) -> None:
    newest = {plan.newest: stream.rows(1, 0), **states}
    stream.outputs(translate_graph(_graph(plan.step), stream.b, newest))
    stream.end("step")


def _shifted(model: onnx.ModelProto, entry: BankTensor) -> tuple[str, str]:
    """(the slots without the last one, the slots moved on by one) of a bank's tensor.

    Raises:
        TranslateError: the graph does not move it as `engines.split.advance` does.
    """
    kept = [n for n in model.graph.node if entry.name in n.input]
    if len(kept) == 1 and kept[0].op_type == "Slice":
        joined = [n for n in model.graph.node if kept[0].output[0] in n.input]
        if len(joined) == 1 and joined[0].op_type == "Concat" and len(joined[0].input) == 2:
            return kept[0].output[0], joined[0].output[0]
    raise TranslateError(f"the bank {entry.name!r} does not move on by one slot")


def _bank(stream: _Stream, plan: SplitPlan) -> dict[str, Tensor]:
    """Writes `advance`; where the step finds its states."""
    graph, b = _graph(plan.advance), stream.b
    slots = stream.model.window - 1
    banks, bound, states, skip = {}, {}, {}, []
    for entry, (state, shape) in zip(plan.bank, plan.states, strict=True):
        width = entry.start.shape[1]
        buffer = b.buffer(slots * width, "state", entry.name, entry.start)
        bank = Tensor(buffer, 0, (slots, width), row_major((slots, width)))
        move = Move("seq", width, 0, slots)
        slot = Tensor(buffer, 0, (1, width), (0, 1), (move,))
        b.label = f"start {entry.name}"
        b.copy(b.constant(entry.start[:1], f"{entry.name}/start"), slot)
        kept, moved = _shifted(graph, entry)
        skip += [kept, state]
        bound[moved], banks[entry.following], states[state] = bank, bank, slot
        if shape != (1, width):
            raise TranslateError(f"the state {state!r} has shape {shape}")
        skip.append(moved)
    answers = translate_graph(graph, b, {plan.newest: stream.rows(1, 0)}, bound, skip)
    _write(stream, answers, banks)
    stream.end("advance")
    return states


def stream_program(model: LoopModel, plan: SplitPlan | None) -> StreamProgram:
    """The program of a model.

    Args:
        model: a checked model; its content, where `plan` is None.
        plan: its split, where it is to run split.

    Raises:
        TranslateError: an operator has no rule, or something that it computes is not known here.
    """
    try:
        return _program(model, plan)
    except TranslateError as error:
        raise TranslateError(f"{model.name}: {error}") from error


def _program(model: LoopModel, plan: SplitPlan | None) -> StreamProgram:
    stream = _Stream(model)
    rows_before = model.window - 1
    if plan is None:
        first = 1 if rows_before else 0  # the oldest row of the window; of one row: that one
        window = {model.input: stream.rows(model.window, first)}
        answers = translate_graph(_graph(model.content), stream.b, window)
        stream.outputs(answers)
        stream.end("step")
        stream.sections["advance"] = ()
        return stream.program(rows_before, rows_before, "whole")
    # With two rows the bank has one slot, which starts anew with every row: that is `pre`.
    mode = "pre" if plan.mode == "bank" and rows_before == 1 else plan.mode
    if mode == "bank":
        _step(stream, plan, _bank(stream, plan))
        return stream.program(rows_before, 0, "bank")
    states = _states(stream, plan)
    _before(stream, plan, states)
    if mode == "pre":
        stream.end("advance")
    else:
        stream.end("first")
        inputs = {plan.newest: stream.rows(1, 0), **states}
        _write(stream, translate_graph(_graph(plan.advance), stream.b, inputs), states, "_next")
        stream.end("advance")
    _step(stream, plan, states)
    return stream.program(rows_before, rows_before - 1, mode)
