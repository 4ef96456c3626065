"""Operators that only say where elements lie: most of them change a view and compute nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.translate.builder import TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.tensors import Tensor, row_major

__all__ = ["RULES", "gather_axis", "pad"]

_MAX_RUNS = 256  # every run is an operation


def _same(c: NodeContext) -> Tensor:
    return c.x(0)


def _reshape(c: NodeContext) -> Tensor:
    return c.b.reshape(c.x(0), c.shape())


def _transpose(c: NodeContext) -> Tensor:
    x = c.x(0)
    order = c.attributes.get("perm") or range(len(x.shape) - 1, -1, -1)
    return x.transpose([int(a) for a in order])


def _slice(c: NodeContext) -> Tensor:
    x = c.x(0)
    starts, ends = c.ints(1, "starts"), c.ints(2, "ends")
    if starts is None or ends is None:
        raise TranslateError("its starts and ends are not given")
    axes = c.ints(3, "axes") or list(range(len(starts)))
    steps = c.ints(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= len(x.shape)
        places = range(x.shape[axis])[slice(start, end, step)]
        x = x.cut(axis, places[0], len(places), step)
    return x


def _split(c: NodeContext) -> list[Tensor]:
    x = c.x(0)
    axis, at, parts = c.axis(0, len(x.shape)), 0, []
    for index in range(len(c.node.output)):
        count = c.shape(index)[axis]
        parts.append(x.cut(axis, at, count))
        at += count
    return parts


def _concat(c: NodeContext) -> Tensor:
    shape = c.shape()
    out, at = c.b.tensor(shape), 0
    axis = c.axis(0, len(shape))
    for index in range(c.inputs):
        part = c.x(index)
        c.b.copy(part, out.cut(axis, at, part.shape[axis]))
        at += part.shape[axis]
    return out


def _runs(places: list[int]) -> list[tuple[int, int, int]]:
    """(first, count, step) of evenly spaced runs that make up `places`, longest first."""
    runs, at = [], 0
    while at < len(places):
        step = places[at + 1] - places[at] if at + 1 < len(places) else 1
        end = at + 1
        while end < len(places) and places[end] - places[end - 1] == step:
            end += 1
        runs.append((places[at], end - at, step))
        at = end
    return runs


def gather_axis(c: NodeContext, x: Tensor, axis: int, places: list[int]) -> Tensor:
    """Those positions of one axis: a view where they are evenly spaced, else copies of runs."""
    runs = _runs(places)
    if len(runs) > _MAX_RUNS:
        raise TranslateError(f"it reads {len(runs)} scattered places, at most {_MAX_RUNS}")
    if len(runs) == 1:
        return x.cut(axis, *runs[0])
    out, at = c.b.tensor((*x.shape[:axis], len(places), *x.shape[axis + 1 :])), 0
    for run in runs:
        c.b.copy(x.cut(axis, *run), out.cut(axis, at, run[1]))
        at += run[1]
    return out


def _gather(c: NodeContext) -> Tensor:
    x, indices = c.x(0), c.known(1, "indices")
    axis = c.axis(0, len(x.shape))
    places = [int(i) % x.shape[axis] for i in indices.ravel()]
    if indices.ndim == 0:
        return x.pick(axis, places[0])
    out = gather_axis(c, x, axis, places)
    return c.b.reshape(out, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(c: NodeContext) -> Tensor:
    x, indices = c.x(0), c.known(1, "indices").astype(np.int64)
    axis = c.axis(0, len(x.shape))
    places = list(np.indices(indices.shape))
    places[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
    return _elements(c, x, np.ravel_multi_index(tuple(places), x.shape))


def _gather_nd(c: NodeContext) -> Tensor:
    x, indices = c.x(0), c.known(1, "indices").astype(np.int64)
    if c.integer("batch_dims", 0):
        raise TranslateError("it has batch dimensions")
    deep = indices.shape[-1]
    numbers = np.arange(x.size).reshape(x.shape)
    return _elements(c, x, numbers[tuple(indices[..., k] for k in range(deep))])


def _elements(c: NodeContext, x: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Elements by their number in row-major order."""
    flat = c.b.reshape(x, (x.size,))
    return c.b.reshape(gather_axis(c, flat, 0, [int(p) for p in places.ravel()]), places.shape)


def _triangle(c: NodeContext) -> Tensor:
    """Trilu: zero on one side of a diagonal."""
    x = c.x(0)
    shift = int(c.known(1, "diagonal").ravel()[0]) if c.has(1) else 0
    rows, columns = np.indices(x.shape[-2:])
    kept = columns >= rows + shift if c.integer("upper", 1) else columns <= rows + shift
    mask = c.b.constant(kept)
    return c.b.map([mask, x], lambda b, i: b.add("where", i[0], i[1], b.value(0.0)))


def _expand(c: NodeContext) -> Tensor:
    return c.x(0).broadcast(c.shape())


def pad(c: NodeContext, x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    """Constant padding; negative amounts cut."""
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        cut = max(0, -low)
        x = x.cut(axis, cut, x.shape[axis] - cut - max(0, -high))
    before, after = [max(0, n) for n in before], [max(0, n) for n in after]
    if not any(before) and not any(after):
        return x
    shape = [n + a + b for n, a, b in zip(x.shape, before, after, strict=True)]
    # The border stays as it starts: only what lies inside is written.
    start = np.full(shape, value, np.float32)
    inner = out = Tensor(
        c.b.buffer(start.size, "state", "", start), 0, tuple(shape), row_major(shape)
    )
    for axis, low in enumerate(before):
        inner = inner.cut(axis, low, x.shape[axis])
    c.b.copy(x, inner)
    return out


def _pad(c: NodeContext) -> Tensor:
    x, mode = c.x(0), c.text("mode", "constant")
    amounts = c.ints(1, "pads")
    if amounts is None:
        raise TranslateError("its pads are not given")
    rank = len(x.shape)
    axes = [a % rank for a in (c.ints(3, "axes") or range(rank))]
    before, after = [0] * rank, [0] * rank
    for axis, low, high in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True):
        before[axis], after[axis] = low, high
    if not any(amounts):
        return x
    if mode == "constant":
        value = c.value(2)
        if value is None and c.has(2):
            raise TranslateError("its value is computed")
        return pad(c, x, before, after, 0.0 if value is None else float(value.ravel()[0]))
    for axis in range(rank):
        places = np.pad(np.arange(x.shape[axis]), (before[axis], after[axis]), mode=mode)  # type: ignore[call-overload]
        if len(places) != x.shape[axis]:
            x = gather_axis(c, x, axis, [int(p) for p in places])
    return x


def _tile(c: NodeContext) -> Tensor:
    x = c.x(0)
    repeats = [int(r) for r in c.known(1, "repeats").ravel()]
    for axis, times in enumerate(repeats):
        if times > 1:
            n, rest = x.shape[axis], x.shape[axis + 1 :]
            wide = x.insert(axis).broadcast((*x.shape[:axis], times, n, *rest))
            x = c.b.reshape(wide, (*x.shape[:axis], times * n, *rest))
    return x


def _depth_to_space(c: NodeContext) -> Tensor:
    x, size = c.x(0), c.integer("blocksize", 1)
    n, depth, high, wide = x.shape
    block = depth // size**2
    if c.text("mode", "DCR") == "DCR":
        seen, order = (n, size, size, block, high, wide), (0, 3, 4, 1, 5, 2)
    else:
        seen, order = (n, block, size, size, high, wide), (0, 1, 4, 2, 5, 3)
    return c.b.reshape(c.b.reshape(x, seen).transpose(order), c.shape())


def _space_to_depth(c: NodeContext) -> Tensor:
    x, size = c.x(0), c.integer("blocksize", 1)
    n, depth, high, wide = x.shape
    seen = c.b.reshape(x, (n, depth, high // size, size, wide // size, size))
    return c.b.reshape(seen.transpose((0, 3, 5, 1, 2, 4)), c.shape())


def _dropout(c: NodeContext) -> Tensor:
    training = c.value(2)
    if c.has(2) and (training is None or training.any()):
        raise TranslateError("it is in training mode")
    return c.x(0)


RULES: dict[str, Callable[[NodeContext], Tensor | list[Tensor]]] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _reshape,
}
