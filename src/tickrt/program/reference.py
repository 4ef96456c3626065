"""A program in NumPy: what it means. Slow, exact, and the measure of every generated kernel.

Entry point: `Reference(program)` with `submit`, `advance`, `reset`, as an engine handle has them.
Sums are made in float64 and rounded once, before the start is added, and so is every line of a
`Map`: a kernel's error is its own, and joining operations changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tickrt.errors import EngineError
from tickrt.program.check import check
from tickrt.program.ir import (
    OUTPUT,
    ROWS,
    Contract,
    For,
    Map,
    Operation,
    Reduce,
    StreamProgram,
    View,
)

__all__ = ["Reference", "run"]

_erf = np.vectorize(math.erf, otypes=[np.float64])
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "less": np.less,
    "equal": np.equal,
    "less_equal": np.less_equal,
    "where": lambda condition, x, y: np.where(condition != 0, x, y),
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda x: 0.5 * (1.0 + np.tanh(0.5 * x)),
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sin": np.sin,
    "cos": np.cos,
}
_FOLDS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
}
Array = NDArray[np.float32]
Memory = dict[str, Array]


def _array(memory: Memory, view: View, sizes: tuple[int, ...], index: dict[str, int]) -> Array:
    offset = view.offset
    for move in view.moves:
        place = index[move.index] + move.shift
        offset += move.stride * (place % move.period if move.period else place)
    strides = [4 * s for s in view.strides]
    return as_strided(memory[view.buffer][offset:], sizes, strides, writeable=True)


def _map(memory: Memory, op: Map, index: dict[str, int]) -> None:
    lines: list[Any] = []
    for instruction in op.body:
        if instruction.function == "value":
            lines.append(np.float32(instruction.arguments[0]))
        elif instruction.function == "load":
            view = op.inputs[int(instruction.arguments[0])]
            lines.append(_array(memory, view, op.loops, index).copy())
        else:
            arguments = [lines[int(a)].astype(np.float64) for a in instruction.arguments]
            lines.append(np.asarray(_FUNCTIONS[instruction.function](*arguments), np.float32))
    for view, result in zip(op.outputs, op.results):
        _array(memory, view, op.loops, index)[...] = lines[result]


def _factor(
    memory: Memory, view: View, sizes: tuple[int, ...], index: dict[str, int]
) -> tuple[NDArray[np.float64], list[int]]:
    """An operand without the loops in which it repeats, and the loops that are left."""
    walked = [i for i, stride in enumerate(view.strides) if stride]
    seen = View(view.buffer, view.offset, tuple(view.strides[i] for i in walked), view.moves)
    array = _array(memory, seen, tuple(sizes[i] for i in walked), index)
    return array.astype(np.float64), walked


def _contract(memory: Memory, op: Contract, index: dict[str, int]) -> None:
    sizes, n = op.loops + op.folds, len(op.loops)
    a, in_a = _factor(memory, op.a, sizes, index)
    b, in_b = _factor(memory, op.b, sizes, index)
    walked = set(in_a) | set(in_b)
    kept = [i for i in range(n) if i in walked]
    left, right, out = ("".join(chr(ord("a") + i) for i in part) for part in (in_a, in_b, kept))
    total = np.asarray(np.einsum(f"{left},{right}->{out}", a, b, optimize=True))
    total = total * math.prod(sizes[i] for i in range(n, len(sizes)) if i not in walked)
    total = total.reshape([sizes[i] if i in walked else 1 for i in range(n)])
    result = np.asarray(np.broadcast_to(total, op.loops), np.float32)
    if op.start is not None:
        result = result + _array(memory, op.start, op.loops, index)
    _array(memory, op.output, op.loops, index)[...] = result


def run(memory: Memory, operations: tuple[Operation, ...], index: dict[str, int]) -> None:
    """Run `operations` on `memory` (buffers by name); `index` has ``seq``."""
    with np.errstate(all="ignore"):  # what is not a number stays none, as in a kernel
        _run(memory, operations, index)


def _run(memory: Memory, operations: tuple[Operation, ...], index: dict[str, int]) -> None:
    for op in operations:
        if isinstance(op, For):
            for count in range(op.count):
                _run(memory, op.body, {**index, op.index: count})
        elif isinstance(op, Map):
            _map(memory, op, index)
        elif isinstance(op, Contract):
            _contract(memory, op, index)
        elif isinstance(op, Reduce):
            axes = tuple(range(len(op.loops), len(op.loops) + len(op.folds)))
            x = _array(memory, op.x, op.loops + op.folds, index).astype(np.float64)
            _array(memory, op.output, op.loops, index)[...] = _FOLDS[op.kind](x, axis=axes)


class Reference:
    """An engine on its own ring of rows.

    Raises:
        EngineError: the program is not sound.
    """

    def __init__(self, program: StreamProgram) -> None:
        self.program = check(program)
        self.memory: Memory = {
            name: np.zeros(buffer.size, np.float32) for name, buffer in program.buffers.items()
        }
        self.reset()
        for name, buffer in program.buffers.items():
            if buffer.kind == "constant" and buffer.start is not None:
                self.memory[name][:] = buffer.start

    def reset(self) -> None:
        """Forget every row: states start anew."""
        self.count, self.last = 0, 0
        for name, buffer in self.program.buffers.items():
            if buffer.kind == "state":
                self.memory[name][:] = 0.0 if buffer.start is None else buffer.start

    def _store(self, seq: int, row: Array) -> None:
        window = self.program.window
        ring = self.memory[ROWS].reshape(2 * window, self.program.width)
        ring[seq % window] = ring[seq % window + window] = row

    def submit(self, seq: int, row: Array) -> Array:
        """The outputs of row `seq`, float32 [n]; `row` is float32 [F].

        Raises:
            EngineError: too few rows came before it.
        """
        if self.count < self.program.warm or (self.count and seq != self.last + 1):
            raise EngineError(
                f"row {seq}: the engine has the {self.count} rows up to {self.last}, it needs "
                f"{self.program.warm} rows right before"
            )
        self._store(seq, row)
        run(self.memory, self.program.sections["step"], {"seq": seq})
        return self.memory[OUTPUT].copy()

    def advance(self, seq: int, row: Array) -> None:
        """Row `seq` is in: prepare for the next one. A gap in the numbers is a reset."""
        if self.count and seq != self.last + 1:
            self.reset()
        self._store(seq, row)
        self.count, self.last = self.count + 1, seq
        if self.count > self.program.idle:
            first = self.count == self.program.warm and "first" in self.program.sections
            section = self.program.sections["first" if first else "advance"]
            run(self.memory, section, {"seq": seq})
