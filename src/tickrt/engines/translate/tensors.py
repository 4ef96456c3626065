"""A tensor of an ONNX graph as a view of a buffer; reshaping and slicing only change the view.

Entry point: `Tensor` with `reshape`, `transpose`, `cut`, `pick`, `broadcast`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tickrt.program import Move, View

__all__ = ["Tensor", "row_major"]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Tensor:
    """Element (i, j, …) lies at ``offset + Σ index · stride`` of `buffer`, moved by `moves`."""

    buffer: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    moves: tuple[Move, ...] = ()

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    def view(self) -> View:
        """As an operand whose loops are the tensor's dimensions."""
        return View(self.buffer, self.offset, self.strides, self.moves)

    def reshape(self, shape: Sequence[int]) -> Tensor | None:
        """The same elements in the same order under another shape; None: a copy is needed."""
        wanted = tuple(shape)
        old = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        merged: list[tuple[int, int]] = []  # dense runs of the old dimensions
        for n, s in old:
            if merged and merged[-1][1] == n * s:
                merged[-1] = (merged[-1][0] * n, s)
            else:
                merged.append((n, s))
        strides, runs = [0] * len(wanted), list(merged)
        for axis in reversed(range(len(wanted))):
            size = wanted[axis]
            if size == 1:
                continue
            if not runs or runs[-1][0] % size:
                return None
            n, s = runs.pop()
            strides[axis] = s
            if n != size:
                runs.append((n // size, s * size))
        return None if runs else replace(self, shape=wanted, strides=tuple(strides))

    def transpose(self, order: Sequence[int]) -> Tensor:
        """Dimensions in another order."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in order),
            strides=tuple(self.strides[a] for a in order),
        )

    def cut(self, axis: int, start: int, count: int, step: int = 1) -> Tensor:
        """Positions start, start + step, … of one axis."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = count, strides[axis] * step
        return replace(self, offset=offset, shape=tuple(shape), strides=tuple(strides))

    def pick(self, axis: int, position: int) -> Tensor:
        """One position of an axis; the axis is gone."""
        part = self.cut(axis, position, 1)
        return replace(
            part,
            shape=part.shape[:axis] + part.shape[axis + 1 :],
            strides=part.strides[:axis] + part.strides[axis + 1 :],
        )

    def insert(self, axis: int) -> Tensor:
        """A new axis of size 1."""
        return replace(
            self,
            shape=(*self.shape[:axis], 1, *self.shape[axis:]),
            strides=(*self.strides[:axis], 0, *self.strides[axis:]),
        )

    def broadcast(self, shape: Sequence[int]) -> Tensor:
        """Repeated along new axes and those of size 1, as NumPy does.

        Raises:
            ValueError: the shapes do not go together.
        """
        missing = len(shape) - len(self.shape)
        sizes, steps = (1,) * missing + self.shape, (0,) * missing + self.strides
        if missing < 0 or any(n not in (1, m) for n, m in zip(sizes, shape, strict=True)):
            raise ValueError(f"{self.shape} cannot be repeated to {tuple(shape)}")
        strides = tuple(0 if n == 1 else s for n, s in zip(sizes, steps, strict=True))
        return replace(self, shape=tuple(shape), strides=strides)

    def moved(self, move: Move) -> Tensor:
        """Its place depends on a number."""
        return replace(self, moves=(*self.moves, move))
