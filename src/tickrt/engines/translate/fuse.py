"""Element-wise operations that follow one another, as one: `fuse`.

Two ways, tried until none applies:

    inline   a consumer computes what it would read, where it reads each element once
    merge    two operations over the same loops become one that writes both results
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tickrt.engines.translate.tensors import row_major
from tickrt.program import Instruction, Map, Operation, View
from tickrt.program.ir import reads, writes

__all__ = ["fuse", "over", "without_dead_lines"]

_MAX_LINES = 64


def _append(
    body: list[Instruction],
    known: dict[Instruction, int],
    lines: Sequence[Instruction],
    loads: Sequence[int],
) -> list[int]:
    """Add `lines`; line "load i" becomes the line ``loads[i]``. The new numbers of the lines."""
    numbers: list[int] = []
    for line in lines:
        if line.function == "load":
            numbers.append(loads[int(line.arguments[0])])
            continue
        arguments = line.arguments
        if line.function != "value":
            arguments = tuple(numbers[int(a)] for a in arguments)
        new = Instruction(line.function, arguments)
        if new not in known:
            known[new] = len(body)
            body.append(new)
        numbers.append(known[new])
    return numbers


class _Writer:
    """A new map's inputs and lines."""

    def __init__(self) -> None:
        self.inputs: list[View] = []
        self.body: list[Instruction] = []
        self.known: dict[Instruction, int] = {}

    def load(self, view: View) -> int:
        if view not in self.inputs:
            self.inputs.append(view)
        line = Instruction("load", (self.inputs.index(view),))
        if line not in self.known:
            self.known[line] = len(self.body)
            self.body.append(line)
        return self.known[line]

    def add(self, lines: Sequence[Instruction], loads: Sequence[int]) -> list[int]:
        return _append(self.body, self.known, lines, loads)


def _digits(offset: int, strides: Sequence[int]) -> list[int] | None:
    """The index that lies `offset` elements in; strides fall."""
    digits = []
    for stride in strides:
        if stride <= 0:
            return None
        digits.append(offset // stride)
        offset %= stride
    return None if offset else digits


def _within(producer: Map, view: View, loops: Sequence[int]) -> tuple[View, ...] | None:
    """The producer's inputs, seen through `view` of its output; None where that is no view.

    Args:
        loops: of the consumer.
    """
    written = producer.outputs[0]
    if written.moves or view.moves or list(written.strides) != sorted(written.strides)[::-1]:
        return None
    first = _digits(view.offset - written.offset, written.strides)
    steps = [_digits(s, written.strides) for s in view.strides]
    if first is None or min(first, default=0) < 0 or any(s is None for s in steps):
        return None
    known = [s for s in steps if s is not None]
    for axis, size in enumerate(producer.loops):  # no index may run over into the next axis
        spans = [s[axis] * (n - 1) for s, n in zip(known, loops, strict=True)]
        low, high = sum(min(0, s) for s in spans), sum(max(0, s) for s in spans)
        if first[axis] + low < 0 or first[axis] + high >= size:
            return None

    def seen(source: View) -> View:
        offset = sum(d * s for d, s in zip(first, source.strides, strict=True))
        strides = tuple(sum(d * s for d, s in zip(k, source.strides, strict=True)) for k in known)
        return View(source.buffer, source.offset + offset, strides, source.moves)

    return tuple(seen(source) for source in producer.inputs)


def over(op: Map, loops: tuple[int, ...]) -> Map:
    """The same with its only loop as several nested ones, where they have as many turns."""
    if len(op.loops) != 1 or len(loops) < 2 or math.prod(loops) != op.loops[0]:
        return op

    def split(view: View) -> View:
        return replace(view, strides=tuple(view.strides[0] * s for s in row_major(loops)))

    inputs, outputs = tuple(map(split, op.inputs)), tuple(map(split, op.outputs))
    return replace(op, loops=loops, inputs=inputs, outputs=outputs)


def _inlined(producer: Map, consumer: Map) -> Map | None:
    """The consumer, computing what it read of the producer."""
    name, consumer = producer.outputs[0].buffer, over(consumer, producer.loops)
    writer, loads = _Writer(), []
    for view in consumer.inputs:
        if view.buffer != name:
            loads.append(writer.load(view))
            continue
        sources = _within(producer, view, consumer.loops)
        if sources is None:
            return None
        numbers = writer.add(producer.body, [writer.load(s) for s in sources])
        loads.append(numbers[producer.results[0]])
    numbers = writer.add(consumer.body, loads)
    if len(writer.body) > _MAX_LINES:
        return None
    results = tuple(numbers[r] for r in consumer.results)
    return replace(consumer, inputs=tuple(writer.inputs), body=tuple(writer.body), results=results)


def _clash(op: Operation, producer: Map) -> bool:
    """True when the producer cannot be computed after `op`: it would read or write other values."""
    return bool(writes(op) & (reads(producer) | writes(producer)))


def _reads_of(op: Map, name: str) -> int:
    """How many elements of buffer `name` it reads, repeats counted."""
    return math.prod(op.loops) * sum(v.buffer == name for v in op.inputs)


def _inline_once(section: list[Operation], scratch: set[str]) -> bool:
    for at, producer in enumerate(section):
        if not isinstance(producer, Map) or len(producer.outputs) != 1:
            continue
        name = producer.outputs[0].buffer
        users = [i for i, op in enumerate(section) if name in reads(op)]
        writers = [i for i, op in enumerate(section) if name in writes(op)]
        consumers = [section[i] for i in users]
        maps = [op for op in consumers if isinstance(op, Map)]
        if name not in scratch or writers != [at] or not users or len(maps) != len(users):
            continue
        size = math.prod(producer.loops)
        cheap = len(producer.body) <= 1
        if min(users) <= at or (not cheap and sum(_reads_of(op, name) for op in maps) > size):
            continue
        if any(_clash(op, producer) for op in section[at + 1 : max(users)]):
            continue
        made = [_inlined(producer, op) for op in maps]
        if any(op is None for op in made):
            continue
        if any(_unsafe(op) for op in made if op is not None):
            continue
        for i, op in zip(users, made, strict=True):
            assert op is not None
            section[i] = op
        del section[at]
        return True
    return False


def _unsafe(op: Map) -> bool:
    """True when it writes a buffer that it also reads at other places."""
    return any(
        source.buffer == target.buffer and source != target
        for target in op.outputs
        for source in op.inputs
    )


def _merged(first: Map, second: Map) -> Map | None:
    writer = _Writer()
    numbers = writer.add(first.body, [writer.load(v) for v in first.inputs])
    made = {view: numbers[r] for view, r in zip(first.outputs, first.results, strict=True)}
    touched = {view.buffer for view in first.outputs}
    loads = []
    for view in second.inputs:
        if view in made:
            loads.append(made[view])
        elif view.buffer in touched:
            return None
        else:
            loads.append(writer.load(view))
    later = writer.add(second.body, loads)
    if len(writer.body) > _MAX_LINES:
        return None
    both = replace(
        first,
        inputs=tuple(writer.inputs),
        body=tuple(writer.body),
        outputs=first.outputs + second.outputs,
        results=tuple(numbers[r] for r in first.results) + tuple(later[r] for r in second.results),
        label=first.label,
    )
    written = [v.buffer for v in both.outputs]
    return None if _unsafe(both) or len(set(written)) != len(written) else both


def _merge_once(section: list[Operation], copies: bool) -> bool:
    for at, first in enumerate(section):
        if not isinstance(first, Map):
            continue
        for later in range(at + 1, len(section)):
            second = section[later]
            if isinstance(second, Map) and (copies or len(first.body) + len(second.body) > 2):
                second = over(second, first.loops)
                wide = over(first, second.loops)
                both = _merged(wide, second) if wide.loops == second.loops else None
                if both is not None:
                    section[at] = both
                    del section[later]
                    return True
            # Beyond this operation the second one could only move up if nothing in between minds.
            break
    return False


def fuse(section: Sequence[Operation], scratch: set[str], copies: bool) -> list[Operation]:
    """The same operations, fewer of them.

    Args:
        scratch: buffers that nobody outside of the section reads.
        copies: join copies too; apart they can still be forwarded.
    """
    operations = list(section)
    while _inline_once(operations, scratch) or _merge_once(operations, copies):
        pass
    return [without_dead_lines(op) if isinstance(op, Map) else op for op in operations]


def without_dead_lines(op: Map) -> Map:
    """Lines and inputs that no result needs are gone."""
    needed = set(op.results)
    for line in reversed(range(len(op.body))):
        instruction = op.body[line]
        if line in needed and instruction.function not in ("load", "value"):
            needed.update(int(a) for a in instruction.arguments)
    writer, numbers = _Writer(), {}
    for line in sorted(needed):
        instruction = op.body[line]
        if instruction.function == "load":
            numbers[line] = writer.load(op.inputs[int(instruction.arguments[0])])
        elif instruction.function == "value":
            numbers[line] = writer.add([instruction], [])[0]
        else:
            arguments = tuple(numbers[int(a)] for a in instruction.arguments)
            new = Instruction(instruction.function, arguments)
            if new not in writer.known:
                writer.known[new] = len(writer.body)
                writer.body.append(new)
            numbers[line] = writer.known[new]
    return replace(
        op,
        inputs=tuple(writer.inputs),
        body=tuple(writer.body),
        results=tuple(numbers[r] for r in op.results),
    )
