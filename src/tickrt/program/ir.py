"""What a program is: buffers of float32, and operations that are plain loops over views of them.

There are four operations. `Map` is an element-wise expression, `Reduce` folds some of its loops,
`Contract` is a sum of products (a linear layer, a convolution, attention, an Einsum), `For` repeats
operations. Everything else that a model does – reshape, transpose, slice, split, broadcast – is a
view: an offset and a stride per loop. So a backend has four things to write, and a person who reads
a program sees what is computed.

A `StreamProgram` is an engine on a stream of rows, as sections of operations:

    step      row `seq` is here: the outputs. The only section on the path.
    advance   row `seq`'s order is out: what the next step needs and does not depend on its row.

Rows lie in a mirrored ring: row `seq` at ring row ``seq % T`` and again T rows later, so the T−1
rows that end with `seq` start at ring row ``seq % T + 2``. An address that moves with `seq` is a
`Move` of its view. States start as `Buffer.start` says, and do so again on a reset.

Invariants: every address that an operation can form lies in its buffer (`check`); operations have
fixed sizes; within one operation no element is read after another one was written over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import EngineError

__all__ = [
    "FUNCTIONS",
    "KINDS",
    "OUTPUT",
    "REDUCTIONS",
    "ROWS",
    "Buffer",
    "Contract",
    "For",
    "Instruction",
    "Map",
    "Move",
    "Operation",
    "Reduce",
    "StreamProgram",
    "View",
    "check",
    "walk",
]

ROWS = "rows"  # the buffer that holds the mirrored ring of rows
OUTPUT = "output"  # the buffer that holds the outputs
KINDS = ("rows", "output", "constant", "state", "scratch")
REDUCTIONS = ("sum", "max", "min", "prod")
# Functions of an instruction, with how many arguments each has.
FUNCTIONS = {
    "load": 1,  # argument: number of an input
    "value": 1,  # argument: the number itself
    "add": 2,
    "sub": 2,
    "mul": 2,
    "div": 2,
    "max": 2,
    "min": 2,
    "pow": 2,
    "less": 2,  # 1 where true, else 0, as are the next ones
    "equal": 2,
    "less_equal": 2,
    "where": 3,
    "neg": 1,
    "abs": 1,
    "exp": 1,
    "log": 1,
    "sqrt": 1,
    "tanh": 1,
    "sigmoid": 1,
    "erf": 1,
    "floor": 1,
    "ceil": 1,
    "round": 1,  # to even
    "sin": 1,
    "cos": 1,
}


@dataclass(frozen=True)
class Buffer:
    """Consecutive float32.

    Attributes:
        kind: ``rows`` (the ring), ``output``, ``constant``, ``state`` (kept from row to row),
            ``scratch`` (holds nothing between two sections).
        start: a constant's values, or what a state holds after a reset; float32 [size].
    """

    name: str
    size: int
    kind: str
    start: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Move:
    """What a view's offset moves by: ``stride · ((index + shift) mod period)``.

    `index` is ``seq``, the number of the row, or the variable of an enclosing `For`; period 0:
    without end.
    """

    index: str
    stride: int
    shift: int = 0
    period: int = 0


@dataclass(frozen=True)
class View:
    """Where an operand lies: element (i, j, …) of an operation's loops is at offset + Σ strides.

    A stride of 0 repeats an element; `strides` has one entry per loop.
    """

    buffer: str
    offset: int
    strides: tuple[int, ...]
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True)
class Instruction:
    """One line of a `Map`: a function of earlier lines (their numbers), of an input or a value."""

    function: str
    arguments: tuple[int | float, ...]


@dataclass(frozen=True)
class Map:
    """For every element of `loops`: run `body`, write line ``results[i]`` to ``outputs[i]``."""

    loops: tuple[int, ...]
    inputs: tuple[View, ...]
    body: tuple[Instruction, ...]
    outputs: tuple[View, ...]
    results: tuple[int, ...]
    label: str = ""


@dataclass(frozen=True)
class Contract:
    """``output[loops] = start[loops] + Σ over folds of a[loops, folds] · b[loops, folds]``."""

    loops: tuple[int, ...]
    folds: tuple[int, ...]
    a: View
    b: View
    output: View
    start: View | None = None
    label: str = ""


@dataclass(frozen=True)
class Reduce:
    """``output[loops] = fold of x[loops, folds]``."""

    loops: tuple[int, ...]
    folds: tuple[int, ...]
    kind: str
    x: View
    output: View
    label: str = ""


@dataclass(frozen=True)
class For:
    """`body`, `count` times; `index` counts from 0 and moves views."""

    index: str
    count: int
    body: tuple[Operation, ...]
    label: str = ""


Operation = Union[Map, Contract, Reduce, For]  # Python 3.9 evaluates it


@dataclass(frozen=True)
class StreamProgram:
    """An engine on a stream of rows.

    Attributes:
        window, width: T and F.
        warm: rows after a reset before `step` may run: its states are complete then.
        idle: rows after a reset on which `advance` need not run.
        sections: operations by section: ``step``, ``advance``, and where the first states come
            from all rows and later ones from the states before them, ``first``, which runs in the
            place of `advance` on row number `warm`.
        facts: where it came from, for reports.
    """

    window: int
    width: int
    outputs: int
    warm: int
    idle: int
    buffers: dict[str, Buffer]
    sections: dict[str, tuple[Operation, ...]]
    facts: dict[str, str]

    @property
    def constants(self) -> int:
        """Floats of weights and tables."""
        return sum(b.size for b in self.buffers.values() if b.kind == "constant")


def walk(operations: tuple[Operation, ...]) -> Iterator[Operation]:
    """Every operation, with those inside of `For`."""
    for operation in operations:
        yield operation
        if isinstance(operation, For):
            yield from walk(operation.body)


def operands(operation: Operation) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """(views that it reads, views that it writes); none for a `For`."""
    if isinstance(operation, Map):
        return operation.inputs, operation.outputs
    if isinstance(operation, Contract):
        start = () if operation.start is None else (operation.start,)
        return (operation.a, operation.b, *start), (operation.output,)
    if isinstance(operation, Reduce):
        return (operation.x,), (operation.output,)
    return (), ()


def check(program: StreamProgram) -> StreamProgram:
    """`program`, where it is sound.

    Raises:
        EngineError: it is not; says which section, operation and view, and why.
    """
    for name, buffer in program.buffers.items():
        if buffer.kind not in KINDS or buffer.name != name or buffer.size < 1:
            raise EngineError(f"program: buffer {name!r}: {buffer.kind}, size {buffer.size}")
        if buffer.start is not None and buffer.start.shape != (buffer.size,):
            raise EngineError(f"program: buffer {name!r}: its start does not fill it")
    for wanted in (ROWS, OUTPUT):
        if wanted not in program.buffers:
            raise EngineError(f"program: there is no buffer {wanted!r}")
    for section, operations in program.sections.items():
        _check_operations(program, f"program: {section}", operations, {})
    return program


def _check_operations(
    program: StreamProgram, where: str, operations: tuple[Operation, ...], counts: dict[str, int]
) -> None:
    for number, operation in enumerate(operations):
        place = f"{where}[{number}] ({operation.label or type(operation).__name__})"
        if isinstance(operation, For):
            if operation.count < 1 or operation.index in ("seq", *counts):
                raise EngineError(f"{place}: index {operation.index!r}, count {operation.count}")
            inner = {**counts, operation.index: operation.count}
            _check_operations(program, place, operation.body, inner)
            continue
        sizes = operation.loops
        if isinstance(operation, Map):
            _check_body(place, operation)
        reads, writes = operands(operation)
        folds = () if isinstance(operation, Map) else operation.folds
        if any(n < 1 for n in (*sizes, *folds)):
            raise EngineError(f"{place}: loops {sizes} and folds {folds} must be 1 or more")
        start = operation.start if isinstance(operation, Contract) else None
        for view in reads:
            _check_view(program, place, view, sizes if view is start else sizes + folds, counts)
        for view in writes:
            _check_view(program, place, view, sizes, counts)
            if program.buffers[view.buffer].kind in ("constant", "rows"):
                raise EngineError(f"{place}: writes to {view.buffer!r}")


def _check_body(place: str, operation: Map) -> None:
    for line, instruction in enumerate(operation.body):
        expected = FUNCTIONS.get(instruction.function)
        if expected is None or len(instruction.arguments) != expected:
            raise EngineError(f"{place}: line {line}: {instruction}")
        if instruction.function == "value":
            continue
        limit = len(operation.inputs) if instruction.function == "load" else line
        if not all(isinstance(a, int) and 0 <= a < limit for a in instruction.arguments):
            raise EngineError(f"{place}: line {line}: {instruction} reads what is not there")
    if len(operation.results) != len(operation.outputs) or not all(
        0 <= r < len(operation.body) for r in operation.results
    ):
        raise EngineError(f"{place}: results {operation.results}")


def _check_view(
    program: StreamProgram, place: str, view: View, sizes: tuple[int, ...], counts: dict[str, int]
) -> None:
    buffer = program.buffers.get(view.buffer)
    if buffer is None:
        raise EngineError(f"{place}: there is no buffer {view.buffer!r}")
    if len(view.strides) != len(sizes):
        raise EngineError(f"{place}: {len(view.strides)} strides for loops {sizes}: {view}")
    low = high = view.offset
    spans = [(s * (n - 1)) for s, n in zip(view.strides, sizes)]
    for move in view.moves:
        if move.index != "seq" and move.index not in counts:
            raise EngineError(f"{place}: {view} moves with {move.index!r}, which is no index")
        if move.period == 0 and move.index == "seq":
            raise EngineError(f"{place}: {view} moves with seq without end")
        first, last = move.shift, move.shift + counts.get(move.index, 1) - 1
        if move.period:
            first, last = 0, move.period - 1
        low += min(first * move.stride, last * move.stride)
        high += max(first * move.stride, last * move.stride)
    low += sum(min(0, span) for span in spans)
    high += sum(max(0, span) for span in spans)
    if low < 0 or high >= buffer.size:
        raise EngineError(
            f"{place}: {view} reaches {low} … {high} of {buffer.name!r}, which has {buffer.size}"
        )


def size_of(shape: tuple[int, ...]) -> int:
    """How many elements."""
    return math.prod(shape)
