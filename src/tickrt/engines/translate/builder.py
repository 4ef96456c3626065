"""Writes the operations of a program: `ProgramBuilder`, and `Body` for element-wise expressions.

Loops are put into their simplest form as they are written: loops of one turn are left out, loops
that run on as one are joined. So equal work looks equal, which the optimiser relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.translate.tensors import Tensor, row_major
from tickrt.errors import ModelError
from tickrt.program import (
    Buffer,
    Contract,
    For,
    Instruction,
    Map,
    Operation,
    Reduce,
    View,
)

__all__ = ["Body", "ProgramBuilder", "TranslateError", "join_loops"]

Array = NDArray[Any]


class TranslateError(ModelError):
    """The model has something that no generated kernel computes; says what."""


class Body:
    """The lines of an element-wise expression; every method adds one and gives its number."""

    def __init__(self) -> None:
        self.lines: list[Instruction] = []
        self._known: dict[Instruction, int] = {}

    def add(self, function: str, *arguments: int | float) -> int:
        """A line; one that is there already is used again."""
        line = Instruction(function, arguments)
        if line not in self._known:
            self._known[line] = len(self.lines)
            self.lines.append(line)
        return self._known[line]

    def load(self, index: int) -> int:
        """Input number `index`."""
        return self.add("load", index)

    def value(self, number: float) -> int:
        """A constant, rounded to float32."""
        return self.add("value", float(np.float32(number)))


def join_loops(
    sizes: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same loops with those of one turn left out, and neighbours joined where all can be.

    Args:
        strides: per view, a stride per loop.
    """
    kept: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        if kept and all(s[-1] == v[axis] * size for s, v in zip(steps, strides, strict=True)):
            kept[-1] *= size
            for s, v in zip(steps, strides, strict=True):
                s[-1] = v[axis]
            continue
        kept.append(size)
        for s, v in zip(steps, strides, strict=True):
            s.append(v[axis])
    return tuple(kept), [tuple(s) for s in steps]


def _with(view: View, strides: tuple[int, ...]) -> View:
    return View(view.buffer, view.offset, strides, view.moves)


class ProgramBuilder:
    """Collects buffers and operations."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.operations: list[Operation] = []
        self.label = ""
        self._constants: dict[bytes, str] = {}
        self._loops = 0

    def buffer(
        self, size: int, kind: str = "scratch", name: str = "", start: Array | None = None
    ) -> str:
        """A new buffer; its name."""
        base = name or f"t{len(self.buffers)}"
        unique, number = base, 1
        while unique in self.buffers:
            number += 1
            unique = f"{base}.{number}"
        value = None if start is None else np.ascontiguousarray(start, np.float32).ravel()
        self.buffers[unique] = Buffer(unique, max(1, size), kind, value)
        return unique

    def tensor(self, shape: Sequence[int], kind: str = "scratch", name: str = "") -> Tensor:
        """A dense tensor in a buffer of its own."""
        size = int(np.prod(shape, dtype=np.int64))
        return Tensor(self.buffer(size, kind, name), 0, tuple(shape), row_major(shape))

    def constant(self, value: Array, name: str = "") -> Tensor:
        """A tensor of constants; equal values share a buffer."""
        value = np.asarray(value, np.float32)
        dense = np.ascontiguousarray(value)
        key = repr(dense.size).encode() + dense.tobytes()
        if key not in self._constants:
            self._constants[key] = self.buffer(dense.size, "constant", name or "c", dense)
        return Tensor(self._constants[key], 0, value.shape, row_major(value.shape))

    def map(
        self,
        inputs: Sequence[Tensor],
        body: Callable[[Body, list[int]], int],
        out: Tensor | None = None,
    ) -> Tensor:
        """An element-wise operation with broadcasting.

        Args:
            body: writes the lines, given the numbers of the loaded inputs; the result's number.
            out: where to write; default: a new tensor.
        """
        shape = np.broadcast_shapes(*(t.shape for t in inputs)) if inputs else ()
        out = self.tensor(shape) if out is None else out
        lines = Body()
        result = body(lines, [lines.load(i) for i in range(len(inputs))])
        views = [t.broadcast(out.shape).view() for t in inputs]
        loops, strides = join_loops(out.shape, [out.strides, *(v.strides for v in views)])
        self.operations.append(
            Map(
                loops,
                tuple(_with(v, s) for v, s in zip(views, strides[1:], strict=True)),
                tuple(lines.lines),
                (_with(out.view(), strides[0]),),
                (result,),
                self.label,
            )
        )
        return out

    def copy(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The same values, dense or in `out`."""
        return self.map([x], lambda _, inputs: inputs[0], out or self.tensor(x.shape))

    def fill(self, out: Tensor, number: float) -> Tensor:
        """One number everywhere."""
        return self.map([], lambda body, _: body.value(number), out)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Without a copy where the layout allows it."""
        seen = x.reshape(shape)
        if seen is None:
            seen = self.copy(x).reshape(shape)
            assert seen is not None  # dense tensors take every shape of their size
        return seen

    def contract(
        self,
        loops: Sequence[int],
        folds: Sequence[int],
        a: View,
        b: View,
        out: Tensor,
        start: View | None = None,
    ) -> Tensor:
        """``out = start + Σ a·b``; views have a stride per loop, then per fold; out per loop."""
        n = len(loops)
        views = [a.strides[:n], b.strides[:n], out.strides] + ([start.strides] if start else [])
        outer, strides = join_loops(loops, views)
        inner, folded = join_loops(folds, [a.strides[n:], b.strides[n:]])
        self.operations.append(
            Contract(
                outer,
                inner,
                _with(a, strides[0] + folded[0]),
                _with(b, strides[1] + folded[1]),
                _with(out.view(), strides[2]),
                _with(start, strides[3]) if start else None,
                self.label,
            )
        )
        return out

    def reduce(self, kind: str, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        """Fold some axes; they stay as size 1 where `keep` is true."""
        rest = [a for a in range(len(x.shape)) if a not in axes]
        shape = tuple(x.shape[a] for a in rest)
        out = self.tensor(shape)
        outer, strides = join_loops(shape, [tuple(x.strides[a] for a in rest), out.strides])
        inner, folded = join_loops([x.shape[a] for a in axes], [[x.strides[a] for a in axes]])
        self.operations.append(
            Reduce(
                outer,
                inner,
                kind,
                _with(x.view(), strides[0] + folded[0]),
                _with(out.view(), strides[1]),
                self.label,
            )
        )
        if not keep:
            return out
        kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        return self.reshape(out, kept)

    @contextmanager
    def repeat(self, count: int) -> Iterator[str]:
        """What is written inside runs `count` times; gives the index's name."""
        index = f"i{self._loops}"
        self._loops += 1
        outside, self.operations = self.operations, []
        try:
            yield index
        finally:
            inside, self.operations = self.operations, outside
        self.operations.append(For(index, count, tuple(inside), self.label))
