"""Makes a program smaller without changing what it computes.

Entry point: `optimise`. The passes, in their order:

    fold      what depends on constants alone is a constant
    fuse      element-wise operations that follow one another become one
    begin     what is added to a product is where the product begins
    hoist     what a step computes from states alone moves to the end of `advance`
    forward   who writes to a place that is then copied writes to where it is copied to
    drop      what nobody reads is not computed, and buffers that nobody uses are gone

Forward and fuse run twice: what one of them makes, the other can use.

Invariants: every pass is safe by itself; where it cannot show that, it leaves things as they are.
Buffers are compared by name, so an operation "touches" a whole buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.translate.builder import join_loops
from tickrt.engines.translate.fuse import fuse, over, without_dead_lines
from tickrt.program import Buffer, Contract, For, Map, Operation, Reduce, StreamProgram, View
from tickrt.program.ir import OUTPUT, ROWS, operands, reads, walk, writes
from tickrt.program.reference import run

__all__ = ["optimise"]

Section = tuple[Operation, ...]


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
            constant = all(buffers[name].kind == "constant" for name in reads(op))
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
    if isinstance(op, For):
        return False
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
    """What a step computes from states alone."""
    if program.facts.get("mode") == "whole":
        return program
    step = program.sections["step"]
    numbers = _movable(program, step)
    if not numbers:
        return program
    kept = tuple(op for i, op in enumerate(step) if i not in numbers)
    moved = tuple(_later(op) for i, op in enumerate(step) if i in numbers)
    needed = {name for op in kept for name in reads(op)}
    prepared = {name for op in moved for name in writes(op)} & needed
    buffers = {
        name: replace(b, kind="state") if name in prepared else b
        for name, b in program.buffers.items()
    }
    sections = {
        label: kept if label == "step" else section + moved
        for label, section in program.sections.items()
    }
    return replace(program, buffers=buffers, sections=sections)


def _movable(program: StreamProgram, step: Section) -> set[int]:
    """Numbers of the operations whose result is the same in the advance before, and stays until
    the next one: nothing that remains in the step writes what they read or write."""
    candidates = set(range(len(step)))
    while True:
        remain = [op for i, op in enumerate(step) if i not in candidates]
        written = {name for op in remain for name in writes(op)}
        places = {name: _places(program, remain, name) for name in written}
        found: set[int] = set()
        prepared: set[str] = set()
        read: set[str] = set()  # by what remains, so far
        for number, op in enumerate(step):
            sources, targets = reads(op), writes(op)
            kinds = {name: program.buffers[name].kind for name in sources | targets}
            if (
                number in candidates
                and all(kinds[n] in ("constant", "state") or n in prepared for n in sources)
                and all(kinds[n] == "scratch" and n not in read for n in targets)
                and not written.intersection(sources)
                and not any(
                    (_places(program, [op], name) & places[name]).any()
                    for name in targets & written
                )
            ):
                found.add(number)
                prepared |= targets
            else:
                read |= sources
        if found == candidates:
            return found
        candidates = found


def _places(program: StreamProgram, operations: list[Operation], name: str) -> NDArray[np.bool_]:
    """Which elements of a buffer they write: exact, but for a view that moves, which is all."""
    places = np.zeros(program.buffers[name].size, bool)
    for outer in operations:
        for op in walk((outer,)):
            for view in operands(op)[1]:
                if view.buffer != name:
                    continue
                if view.moves or isinstance(op, For):
                    places[:] = True
                    continue
                at = np.array(view.offset)
                for size, stride in zip(op.loops, view.strides, strict=True):
                    at = at[..., None] + np.arange(size) * stride
                places[at] = True
    return places


def _is_copy(op: Operation) -> bool:
    return (
        isinstance(op, Map)
        and len(op.inputs) == len(op.outputs) == len(op.body) == 1
        and op.body[0].function == "load"
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
        once = sum(v.buffer == target for v in producer.outputs) == 1
        return once and all(v == views[0] for v in views)
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


def _begun(section: list[Operation], at: int, index: int) -> tuple[int, Contract] | None:
    """The product that input `index` of the sum ``section[at]`` is, begun with the other input."""
    total = section[at]
    assert isinstance(total, Map)
    name, other, target = total.inputs[index].buffer, total.inputs[1 - index], total.outputs[0]
    users = [i for i, op in enumerate(section) if name in reads(op) | writes(op)]
    first, product = users[0], section[users[0]]
    if users[1:] != [at] or not isinstance(product, Contract) or product.start is not None:
        return None
    between = section[first + 1 : at]
    if other.buffer == name or any(
        target.buffer in reads(op) or {target.buffer, other.buffer} & writes(op) for op in between
    ):
        return None
    wide = over(total, product.loops)
    if wide.loops != product.loops or wide.inputs[index] != product.output:
        return None
    new = replace(product, output=wide.outputs[0], start=wide.inputs[1 - index])
    return (first, new) if _in_place(new, target.buffer) else None


def _begin_once(section: list[Operation], scratch: set[str]) -> bool:
    for at, total in enumerate(section):
        if not (isinstance(total, Map) and len(total.inputs) == 2 and len(total.outputs) == 1):
            continue
        functions = [line.function for line in total.body]
        if functions != ["load", "load", "add"] or set(total.body[2].arguments) != {0, 1}:
            continue
        if total.results != (2,) or total.body[0] == total.body[1]:
            continue
        for index, source in enumerate(total.inputs):
            made = _begun(section, at, index) if source.buffer in scratch else None
            if made is not None:
                section[made[0]] = made[1]
                del section[at]
                return True
    return False


def _begin(program: StreamProgram) -> StreamProgram:
    sections, scratch = {}, _scratch(program)
    for label, section in program.sections.items():
        operations = list(section)
        while _begin_once(operations, scratch):
            pass
        sections[label] = tuple(operations)
    return replace(program, sections=sections)


def _scratch(program: StreamProgram) -> set[str]:
    """Buffers that hold nothing which another section, or the next row, reads."""
    return {name for name, b in program.buffers.items() if b.kind == "scratch"}


def _forward(program: StreamProgram) -> StreamProgram:
    sections, scratch = {}, _scratch(program)
    for label, section in program.sections.items():
        operations = list(section)
        while _forward_once(operations, scratch):
            pass
        sections[label] = tuple(operations)
    return replace(program, sections=sections)


def _needed(name: str, read: set[str], buffers: dict[str, Buffer]) -> bool:
    return name in read or buffers[name].kind == "output"


def _without_outputs(op: Operation, read: set[str], buffers: dict[str, Buffer]) -> Operation:
    """A map without the results that nobody reads."""
    if not isinstance(op, Map) or len(op.outputs) == 1:
        return op
    pairs = zip(op.outputs, op.results, strict=True)
    kept = [(v, r) for v, r in pairs if _needed(v.buffer, read, buffers)]
    outputs, results = tuple(v for v, _ in kept), tuple(r for _, r in kept)
    return without_dead_lines(replace(op, outputs=outputs, results=results))


def _drop(program: StreamProgram) -> StreamProgram:
    sections = dict(program.sections)
    changed = True
    while changed:
        changed = False
        needed = {name for section in sections.values() for op in section for name in reads(op)}
        for label, section in sections.items():
            kept = tuple(
                _without_outputs(op, needed, program.buffers)
                for op in section
                if any(_needed(name, needed, program.buffers) for name in writes(op))
            )
            changed = changed or kept != section
            sections[label] = kept
    used = {n for s in sections.values() for op in s for n in reads(op) | writes(op)}
    buffers = {n: b for n, b in program.buffers.items() if n in used or n in (ROWS, OUTPUT)}
    return replace(program, buffers=buffers, sections=sections)


def _fuse(program: StreamProgram, copies: bool) -> StreamProgram:
    scratch = _scratch(program)
    sections = {n: tuple(fuse(ops, scratch, copies)) for n, ops in program.sections.items()}
    return replace(program, sections=sections)


def optimise(program: StreamProgram) -> StreamProgram:
    """The same program, smaller."""
    program = _hoist(_fold(_drop(program)))
    program = _fuse(_forward(_begin(program)), copies=False)
    return _drop(_fuse(_drop(_forward(program)), copies=True))
