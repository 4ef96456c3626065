"""Sums of products: MatMul, Gemm, Einsum, Conv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tickrt.engines.translate.builder import ProgramBuilder, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.rules_shape import pad
from tickrt.engines.translate.tensors import Tensor
from tickrt.program import View

__all__ = ["RULES", "Windows", "linear", "matmul", "scaled", "windows"]


def _over(tensor: Tensor, axes: Sequence[int | None]) -> View:
    """The tensor as an operand: per loop the axis that it walks, or None."""
    strides = tuple(0 if a is None else tensor.strides[a] for a in axes)
    return View(tensor.buffer, tensor.offset, strides, tensor.moves)


def linear(
    b: ProgramBuilder, x: Tensor, weights: Tensor, out: Tensor, start: Tensor | None
) -> Tensor:
    """``out[m, n] = start[m, n] + Σ_k x[m, k] · weights[k, n]``."""
    (m, k), n = x.shape, weights.shape[1]
    begin = None if start is None else start.broadcast((m, n)).view()
    rows, columns = _over(x, [0, None, 1]), _over(weights, [None, 1, 0])
    return b.contract([m, n], [k], rows, columns, out, begin)


def scaled(b: ProgramBuilder, x: Tensor, factor: float) -> Tensor:
    """``factor · x``."""
    return b.map([x], lambda body, i: body.add("mul", i[0], body.value(factor)))


def _matmul(c: NodeContext) -> Tensor:
    return matmul(c.b, c.x(0), c.x(1), c.shape())


def matmul(builder: ProgramBuilder, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Batched product as NumPy's; `shape` is the result's."""
    if len(a.shape) == 1:
        a = a.insert(0)
    if len(b.shape) == 1:
        b = b.insert(1)
    batch = shape[: max(len(a.shape), len(b.shape)) - 2]
    a, b = a.broadcast((*batch, *a.shape[-2:])), b.broadcast((*batch, *b.shape[-2:]))
    rank, (m, k), n = len(batch), a.shape[-2:], b.shape[-1]
    out = builder.tensor((*batch, m, n))
    outer: list[int | None] = list(range(rank))
    left, right = _over(a, [*outer, rank, None, rank + 1]), _over(b, [*outer, None, rank + 1, rank])
    builder.contract([*batch, m, n], [k], left, right, out)
    return builder.reshape(out, shape)


def _gemm(c: NodeContext) -> Tensor:
    a, b = c.x(0), c.x(1)
    a = a.transpose([1, 0]) if c.integer("transA", 0) else a
    b = b.transpose([1, 0]) if c.integer("transB", 0) else b
    alpha, beta = c.number("alpha", 1.0), c.number("beta", 1.0)
    start = c.x(2) if c.has(2) else None
    if alpha != 1.0 and c.value(1) is not None:
        b = scaled(c.b, b, alpha)  # a constant, once
    elif alpha != 1.0:
        a = scaled(c.b, a, alpha)
    if start is not None and beta != 1.0:
        start = scaled(c.b, start, beta)
    return linear(c.b, a, b, c.b.tensor(c.shape()), start)


def _einsum(c: NodeContext) -> Tensor:
    text = c.text("equation", "").replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "")
        result = "".join(sorted(s for s in letters if letters.count(s) == 1))
    if "." in text or len(terms) not in (1, 2):
        raise TranslateError(f"equation {text!r}: one or two operands without an ellipsis")
    tensors = [_diagonal(c.x(i), term) for i, term in enumerate(terms)]
    listed = [(s, n) for t, names in tensors for s, n in zip(names, t.shape, strict=True)]
    sizes = {s: max(n for other, n in listed if other == s) for s, _ in listed}
    tensors = [(t.broadcast([sizes[s] for s in names]), names) for t, names in tensors]
    folds = [s for s in sizes if s not in result]
    if len(tensors) == 1:
        x, names = tensors[0]
        if folds:
            x = c.b.reduce("sum", x, [names.index(s) for s in folds], keep=False)
            names = "".join(s for s in names if s in result)
        return x.transpose([names.index(s) for s in result])
    out = c.b.tensor([sizes[s] for s in result])
    loops = [*result, *folds]
    views = [_over(t, [n.index(s) if s in n else None for s in loops]) for t, n in tensors]
    return c.b.contract(
        [sizes[s] for s in result], [sizes[s] for s in folds], views[0], views[1], out
    )


def _diagonal(x: Tensor, names: str) -> tuple[Tensor, str]:
    """A letter that stands twice walks a diagonal."""
    for name in set(names):
        while names.count(name) > 1:
            first, second = names.index(name), names.rindex(name)
            strides = list(x.strides)
            strides[first] += strides.pop(second)
            shape = x.shape[:second] + x.shape[second + 1 :]
            x = Tensor(x.buffer, x.offset, shape, tuple(strides), x.moves)
            names = names[:second] + names[second + 1 :]
    return x, names


@dataclass(frozen=True)
class Windows:
    """Where the windows of a convolution or pooling lie, per axis of space.

    Attributes:
        beyond: positions behind the padding that the last window reaches (``ceil_mode``).
    """

    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    beyond: list[int]

    def pad(self, c: NodeContext, x: Tensor, fill: float) -> Tensor:
        """The input, so wide that every window lies inside."""
        after = [a + b for a, b in zip(self.after, self.beyond, strict=True)]
        return pad(c, x, [0, 0, *self.before], [0, 0, *after], fill)


def windows(c: NodeContext, x: Tensor, kernel: Sequence[int]) -> Windows:
    """As the attributes of the node say, for a window of shape `kernel`."""
    rank = len(kernel)
    strides = [int(s) for s in c.attributes.get("strides", [1] * rank)]
    dilations = [int(d) for d in c.attributes.get("dilations", [1] * rank)]
    pads = [int(p) for p in c.attributes.get("pads", [0] * 2 * rank)]
    auto = c.text("auto_pad", "NOTSET")
    before, after, beyond = pads[:rank], pads[rank:], [0] * rank
    for axis in range(rank):
        size, out = x.shape[2 + axis], c.shape()[2 + axis]
        reach = (out - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, reach - size)
            small, large = total // 2, total - total // 2
            low, high = (small, large) if auto == "SAME_UPPER" else (large, small)
            before[axis], after[axis] = low, high
        beyond[axis] = max(0, reach - size - before[axis] - after[axis])
    return Windows(strides, dilations, before, after, beyond)


def _conv(c: NodeContext) -> Tensor:
    x, weights = c.x(0), c.x(1)
    kernel, group = weights.shape[2:], c.integer("group", 1)
    seen = windows(c, x, kernel)
    x = seen.pad(c, x, 0.0)
    shape, rank = c.shape(), len(kernel)
    out_group, in_group = shape[1] // group, x.shape[1] // group
    out = c.b.tensor(shape)
    step = x.strides[2:]
    walk = tuple(s * t for s, t in zip(step, seen.strides, strict=True))
    reach = tuple(s * d for s, d in zip(step, seen.dilations, strict=True))
    n, o = x.strides[0], weights.strides[0]
    loops, folds = (shape[0], group, out_group, *shape[2:]), (in_group, *kernel)
    flat = (0,) * rank
    a = View(
        x.buffer, x.offset, (n, in_group * x.strides[1], 0, *walk, x.strides[1], *reach), x.moves
    )
    across = (0, out_group * o, o, *flat, *weights.strides[1:])
    b = View(weights.buffer, weights.offset, across, weights.moves)
    grouped = out.reshape(loops)
    assert grouped is not None  # it is dense
    start = None
    if c.has(2):
        bias = c.x(2)
        each = bias.strides[0]
        start = View(bias.buffer, bias.offset, (0, out_group * each, each, *flat), bias.moves)
    c.b.contract(loops, folds, a, b, grouped, start)
    return out


def _cumulative(c: NodeContext) -> Tensor:
    """A product with a triangle of ones."""
    x = c.x(0)
    axis = int(c.known(1, "axis").ravel()[0]) % len(x.shape)
    size, exclusive = x.shape[axis], c.integer("exclusive", 0)
    triangle = np.tri(size, k=-1 if exclusive else 0, dtype=np.float32)  # [to, from]
    triangle = triangle.T if c.integer("reverse", 0) else triangle
    rank, out = len(x.shape), c.b.tensor(x.shape)
    loops: list[int | None] = list(range(rank))
    source = [None if a == axis else a for a in loops] + [axis]
    flags = [0 if a == axis else None for a in loops] + [1]
    views = _over(x, source), _over(c.b.constant(triangle), flags)
    return c.b.contract(x.shape, [size], views[0], views[1], out)


RULES: dict[str, Callable[[NodeContext], Tensor]] = {
    "Conv": _conv,
    "CumSum": _cumulative,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
