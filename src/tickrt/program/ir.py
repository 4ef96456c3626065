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

Every line of a `Map` is rounded to float32; the sums of `Contract` and `Reduce` in any order.

Invariants, held by `check.check`: every address that an operation can form lies in its buffer;
operations have fixed sizes; within one operation no element is written twice, and none is read
after it was written, so its loops may run in any order; scratch is written before it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FUNCTIONS",
    "KINDS",
    "OUTPUT",
    "REDUCTIONS",
    "ROWS",
    "SECTIONS",
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
    "operands",
    "reads",
    "walk",
    "writes",
]

ROWS = "rows"  # the buffer that holds the mirrored ring of rows
OUTPUT = "output"  # the buffer that holds the outputs
KINDS = ("rows", "output", "constant", "state", "scratch")
SECTIONS = ("step", "advance", "first")
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


def reads(operation: Operation) -> set[str]:
    """Buffers that it reads, inside of `For` too."""
    return {v.buffer for op in walk((operation,)) for v in operands(op)[0]}


def writes(operation: Operation) -> set[str]:
    """Buffers that it writes, inside of `For` too."""
    return {v.buffer for op in walk((operation,)) for v in operands(op)[1]}
