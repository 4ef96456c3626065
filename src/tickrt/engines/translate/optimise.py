"""Makes a program smaller without changing what it computes.

Entry point: `optimise`. The passes, in their order:

    fold      what depends on constants alone is a constant
    fuse      element-wise operations that follow one another become one
    hoist     what a step computes from states alone moves to the end of `advance`
    forward   who writes to a place that is then copied writes to where it is copied to
    drop      what nobody reads is not computed, and buffers that nobody uses are gone

Invariants: every pass is safe by itself; where it cannot show that, it leaves things as they are.
Buffers are compared by name, so an operation "touches" a whole buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tickrt.engines.translate.builder import join_loops
from tickrt.engines.translate.fuse import fuse
from tickrt.program import Buffer, Contract, For, Map, Operation, Reduce, StreamProgram, View
from tickrt.program.ir import ROWS, operands, walk
from tickrt.program.reference import run

__all__ = ["optimise", "reads", "writes"]

Section = tuple[Operation, ...]


def reads(operation: Operation) -> set[str]:
    """Buffers that it reads, inside of `For` too."""
    return {v.buffer for op in walk((operation,)) for v in operands(op)[0]}


def writes(operation: Operation) -> set[str]:
    """Buffers that it writes."""
    return {v.buffer for op in walk((operation,)) for v in operands(op)[1]}


def _fold(program: StreamProgram) -> StreamProgram:
    """Operations that read constants only, and are the only ones to write their buffer."""
    buffers, sections = dict(program.buffers), {}
    writers: dict[str, int] = {}
    for section in program.sections.values():
        for op in section:
            for name in writes(op):
                writers[name] = writers.get(name, 0) + 1
    for label, section in program.sections.items():
        kept = []
        for op in section:
            outputs = writes(op)
            constant = not isinstance(op, For) and all(
                buffers[name].kind == "constant" for name in reads(op)
            )
            whole = len(outputs) == 1 and all(
                buffers[n].kind == "scratch" and writers[n] == 1 and _fills(op, buffers[n])
                for n in outputs
            )
            if not (constant and whole):
                kept.append(op)
                continue
            name = outputs.pop()
            memory = {n: np.asarray(buffers[n].start) for n in reads(op)}
            memory[name] = np.zeros(buffers[name].size, np.float32)
            run(memory, (op,), {"seq": 0})
            buffers[name] = Buffer(name, buffers[name].size, "constant", memory[name])
        sections[label] = tuple(kept)
    return replace(program, buffers=buffers, sections=sections)


def _fills(op: Operation, buffer: Buffer) -> bool:
    """True when it writes every element of the buffer."""
    assert not isinstance(op, For)
    view = operands(op)[1][0]
    sizes, strides = join_loops(op.loops, [view.strides])
    dense = (sizes, strides[0]) in (((buffer.size,), (1,)), ((), ()))
    return dense and int(np.prod(op.loops, dtype=np.int64)) == buffer.size and not view.moves


def _later(op: Operation) -> Operation:
    """An operation of step `seq` as one that runs in the advance before it."""

    def shift(view: View) -> View:
        moves = tuple(replace(m, shift=m.shift + 1) if m.index == "seq" else m for m in view.moves)
        return replace(view, moves=moves)

    return map_views(op, shift)


def map_views(op: Operation, change: Callable[[View], View]) -> Operation:
    """The operation with other views."""
    if isinstance(op, Map):
        return replace(
            op,
            inputs=tuple(change(v) for v in op.inputs),
            outputs=tuple(change(v) for v in op.outputs),
        )
    if isinstance(op, Contract):
        start = None if op.start is None else change(op.start)
        return replace(op, a=change(op.a), b=change(op.b), output=change(op.output), start=start)
    if isinstance(op, Reduce):
        return replace(op, x=change(op.x), output=change(op.output))
    return replace(op, body=tuple(map_views(inner, change) for inner in op.body))


def _hoist(program: StreamProgram) -> StreamProgram:
    """What a step computes from states alone.

    A step must give the same outputs when it runs again, so nothing moves that the rest of the step
    writes over: a recurrence that starts in a state and goes on in place keeps its own copy.
    """
    if program.facts.get("mode") == "whole":
        return program
    stay: set[int] = set()
    while True:
        moved = _moved(program, stay)
        kept = [op for i, op in enumerate(program.sections["step"]) if i not in moved]
        spoilt = {i for i, op in moved.items() if any(_overlap(op, other) for other in kept)}
        if not spoilt:
            break
        stay |= spoilt
    if not moved:
        return program
    prepared = {name for op in moved.values() for name in writes(op)}
    buffers = {
        name: replace(b, kind="state") if name in prepared else b
        for name, b in program.buffers.items()
    }
    later = [_later(op) for op in moved.values()]
    sections = {
        label: tuple(kept) if label == "step" else (*section, *later)
        for label, section in program.sections.items()
    }
    return replace(program, buffers=buffers, sections=sections)


def _moved(program: StreamProgram, stay: set[int]) -> dict[int, Operation]:
    """By number in `step`: operations that need nothing but states; never those in `stay`."""
    moved: dict[int, Operation] = {}
    written: set[str] = set()  # by operations that stay
    prepared: set[str] = set()
    for i, op in enumerate(program.sections["step"]):
        sources, targets = reads(op), writes(op)
        known = all(
            program.buffers[name].kind in ("constant", "state") or name in prepared
            for name in sources
        ) and not sources.intersection(written)
        scratch = all(program.buffers[name].kind == "scratch" for name in targets)
        if known and scratch and i not in stay and not targets.intersection(written):
            moved[i] = op
            prepared |= targets
        else:
            written |= targets
    return moved


def _overlap(first: Operation, second: Operation) -> bool:
    """True when both may write the same element."""
    return any(
        a.buffer == b.buffer and (a.moves or b.moves or _elements(x, a) & _elements(y, b))
        for x in walk((first,))
        for a in operands(x)[1]
        for y in walk((second,))
        for b in operands(y)[1]
    )


def _elements(op: Operation, view: View) -> set[int]:
    """What a view of an operation's output touches."""
    assert not isinstance(op, For)
    places = np.array([view.offset])
    for size, stride in zip(op.loops, view.strides, strict=True):
        places = np.add.outer(places, stride * np.arange(size)).ravel()
    return set(places.tolist())


def _is_copy(op: Operation) -> bool:
    return (
        isinstance(op, Map) and len(op.inputs) == 1 and len(op.outputs) == 1 and len(op.body) == 1
    )


def _redirected(producer: Operation, copy: Map) -> Operation | None:
    """`producer`, writing to where `copy` copies its output; None where the two do not fit."""
    if isinstance(producer, For):
        return None
    source, target = copy.inputs[0], copy.outputs[0]
    outputs = operands(producer)[1]
    index = next(i for i, v in enumerate(outputs) if v.buffer == source.buffer)
    view = outputs[index]
    loops, strides = join_loops(producer.loops, [view.strides])
    if view.moves or source.moves or view.offset != source.offset:
        return None
    if producer.loops == copy.loops and view.strides == source.strides:
        there = target.strides
    elif (loops, strides[0]) == (copy.loops, source.strides) and len(loops) == 1:
        step, wide = source.strides[0], target.strides[0]
        if any(s % step for s in view.strides):
            return None
        there = tuple(s // step * wide for s in view.strides)
    else:
        return None
    new = View(target.buffer, target.offset, there, target.moves)
    if isinstance(producer, Map):
        listed = tuple(new if i == index else v for i, v in enumerate(producer.outputs))
        return replace(producer, outputs=listed)
    return replace(producer, output=new)


def _in_place(producer: Operation, target: str) -> bool:
    """True when it may read `target` while it writes it: it reads each element before."""
    if isinstance(producer, Map):
        views = [v for v in (*producer.inputs, *producer.outputs) if v.buffer == target]
        return all(v == views[0] for v in views)
    if isinstance(producer, Contract):
        start = producer.start
        touched = (producer.a.buffer, producer.b.buffer)
        return target not in touched and (
            start is None or start.buffer != target or start == producer.output
        )
    return target not in reads(producer)


def _forward_once(section: list[Operation], scratch: set[str]) -> bool:
    for at, copy in enumerate(section):
        if not (isinstance(copy, Map) and _is_copy(copy)):
            continue
        source, target = copy.inputs[0].buffer, copy.outputs[0].buffer
        users = [i for i, op in enumerate(section) if source in reads(op) | writes(op)]
        if source not in scratch or source == target or len(users) != 2 or users[1] != at:
            continue
        first = users[0]
        producer = section[first]
        between = section[first + 1 : at]
        if source in reads(producer) or any(target in reads(op) | writes(op) for op in between):
            continue
        new = _redirected(producer, copy)
        if new is None or not _in_place(new, target):
            continue
        section[first] = new
        del section[at]
        return True
    return False


def _scratch(program: StreamProgram, label: str) -> set[str]:
    """Buffers that hold nothing which another section reads."""
    elsewhere = {
        name
        for other, section in program.sections.items()
        for op in section
        if other != label
        for name in reads(op) | writes(op)
    }
    return {
        name
        for name, b in program.buffers.items()
        if b.kind in ("scratch", "state") and b.start is None and name not in elsewhere
    }


def _forward(program: StreamProgram) -> StreamProgram:
    sections = {}
    for label, section in program.sections.items():
        operations, scratch = list(section), _scratch(program, label)
        while _forward_once(operations, scratch):
            pass
        sections[label] = tuple(operations)
    return replace(program, sections=sections)


def _drop(program: StreamProgram) -> StreamProgram:
    sections = dict(program.sections)
    changed = True
    while changed:
        changed = False
        needed = {name for section in sections.values() for op in section for name in reads(op)}
        for label, section in sections.items():
            kept = tuple(
                op
                for op in section
                if any(
                    name in needed or program.buffers[name].kind == "output" for name in writes(op)
                )
            )
            changed = changed or len(kept) != len(section)
            sections[label] = kept
    used = {n for s in sections.values() for op in s for n in reads(op) | writes(op)}
    buffers = {n: b for n, b in program.buffers.items() if n in used or n == ROWS}
    return replace(program, buffers=buffers, sections=sections)


def optimise(program: StreamProgram) -> StreamProgram:
    """The same program, smaller."""
    program = _fold(program)
    program = _hoist(program)
    program = _forward(program)
    program = replace(
        program,
        sections={
            label: tuple(fuse(section, _scratch(program, label)))
            for label, section in program.sections.items()
        },
    )
    return _drop(_forward(program))
