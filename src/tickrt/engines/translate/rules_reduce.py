"""Folds and what is built on them: reductions, pooling, softmax, normalisations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tickrt.engines.translate.builder import Body, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.rules_linear import Windows, scaled, windows
from tickrt.engines.translate.tensors import Tensor

__all__ = ["RULES"]

_KINDS = {
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceMean": "sum",
    "ReduceSumSquare": "sum",
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceLogSumExp": "sum",
    "ReduceLogSum": "sum",
}
_BEFORE = {"ReduceSumSquare": "square", "ReduceL2": "square", "ReduceL1": "abs"}


def _mean(c: NodeContext, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    count = math.prod(x.shape[a] for a in axes)
    return scaled(c.b, c.b.reduce("sum", x, axes, keep), 1.0 / count)


def _square(c: NodeContext, x: Tensor) -> Tensor:
    return c.b.map([x], lambda b, i: b.add("mul", i[0], i[0]))


def _reduce(c: NodeContext) -> Tensor:
    x = c.x(0)
    rank, keep = len(x.shape), bool(c.integer("keepdims", 1))
    listed = c.ints(1, "axes")
    if not listed:
        if c.integer("noop_with_empty_axes", 0):
            if c.op in _BEFORE or "Log" in c.op:
                raise TranslateError("it has no axes")
            return x
        listed = list(range(rank))
    axes = sorted(a % rank for a in listed)
    if c.op == "ReduceLogSumExp":
        return c.b.reshape(_log_sum_exp(c, x, axes), c.shape())
    before = _BEFORE.get(c.op)
    if before == "square":
        x = _square(c, x)
    elif before == "abs":
        x = c.b.map([x], lambda b, i: b.add("abs", i[0]))
    out = (
        _mean(c, x, axes, keep) if c.op == "ReduceMean" else c.b.reduce(_KINDS[c.op], x, axes, keep)
    )
    if c.op == "ReduceL2":
        out = c.b.map([out], lambda b, i: b.add("sqrt", i[0]))
    if c.op == "ReduceLogSum":
        out = c.b.map([out], lambda b, i: b.add("log", i[0]))
    return out


def _log_sum_exp(c: NodeContext, x: Tensor, axes: Sequence[int]) -> Tensor:
    def finite(b: Body, i: list[int]) -> int:  # ∞ − ∞ is no number
        infinite = b.add("equal", b.add("abs", i[0]), b.value(math.inf))
        return b.add("where", infinite, b.value(0.0), i[0])

    top = c.b.map([c.b.reduce("max", x, axes, keep=True)], finite)
    small = c.b.map([x, top], lambda b, i: b.add("exp", b.add("sub", i[0], i[1])))
    total = c.b.reduce("sum", small, axes, keep=True)
    return c.b.map([total, top], lambda b, i: b.add("add", b.add("log", i[0]), i[1]))


def _softmax(c: NodeContext) -> Tensor:
    x = c.x(0)
    axes = [c.axis(-1, len(x.shape))]
    if c.op == "LogSoftmax":
        total = _log_sum_exp(c, x, axes)
        return c.b.map([x, total], lambda b, i: b.add("sub", i[0], i[1]))
    top = c.b.reduce("max", x, axes, keep=True)
    small = c.b.map([x, top], lambda b, i: b.add("exp", b.add("sub", i[0], i[1])))
    total = c.b.reduce("sum", small, axes, keep=True)
    return c.b.map([small, total], lambda b, i: b.add("div", i[0], i[1]))


def _normalised(
    c: NodeContext, x: Tensor, axes: Sequence[int], epsilon: float, centred: bool
) -> Tensor:
    if centred:
        mean = _mean(c, x, axes, keep=True)
        x = c.b.map([x, mean], lambda b, i: b.add("sub", i[0], i[1]))
    spread = _mean(c, _square(c, x), axes, keep=True)

    def body(b: Body, i: list[int]) -> int:
        return b.add("div", i[0], b.add("sqrt", b.add("add", i[1], b.value(epsilon))))

    return c.b.map([x, spread], body)


def _scale_and_shift(c: NodeContext, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    if shift is None:
        return c.b.map([x, scale], lambda b, i: b.add("mul", i[0], i[1]))
    return c.b.map([x, scale, shift], lambda b, i: b.add("add", b.add("mul", i[0], i[1]), i[2]))


def _layer_norm(c: NodeContext) -> Tensor:
    """LayerNormalization and RMSNormalization over the last axes."""
    x = c.x(0)
    if len(c.node.output) > 1 and any(c.node.output[1:]):
        raise TranslateError("its mean and deviation are used")
    axes = range(c.axis(-1, len(x.shape)), len(x.shape))
    centred = c.op == "LayerNormalization"
    y = _normalised(c, x, list(axes), c.number("epsilon", 1e-5), centred)
    return _scale_and_shift(c, y, c.x(1), c.x(2) if c.has(2) else None)


def _over_channels(value: Tensor, rank: int) -> Tensor:
    for _ in range(rank - 2):
        value = value.insert(len(value.shape))
    return value


def _instance_norm(c: NodeContext) -> Tensor:
    x = c.x(0)
    y = _normalised(c, x, list(range(2, len(x.shape))), c.number("epsilon", 1e-5), True)
    scale, shift = (_over_channels(c.x(i), len(x.shape)) for i in (1, 2))
    return _scale_and_shift(c, y, scale, shift)


def _group_norm(c: NodeContext) -> Tensor:
    x, groups = c.x(0), c.integer("num_groups", 1)
    seen = c.b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    y = _normalised(c, seen, list(range(2, len(seen.shape))), c.number("epsilon", 1e-5), True)
    scale, shift = c.x(1), c.x(2)
    if scale.shape[0] != x.shape[1]:  # opset 18: one number a group
        wide = (groups, x.shape[1] // groups)
        scale, shift = (
            c.b.reshape(v.insert(1).broadcast(wide), (x.shape[1],)) for v in (scale, shift)
        )
    scale, shift = (_over_channels(v, len(x.shape)) for v in (scale, shift))
    return _scale_and_shift(c, c.b.reshape(y, x.shape), scale, shift)


def _batch_norm(c: NodeContext) -> Tensor:
    """Its statistics are constants: one factor and one summand per channel."""
    x = c.x(0)
    scale, shift, mean, spread = (c.known(i, "statistics").astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(spread + c.number("epsilon", 1e-5))
    parts = (factor, shift - mean * factor)
    if len(x.shape) == 1:
        raise TranslateError("its input has no channels")
    tensors = [_over_channels(c.b.constant(p.astype(np.float32)), len(x.shape)) for p in parts]
    return _scale_and_shift(c, x, tensors[0], tensors[1])


def _seen(c: NodeContext, x: Tensor, places: Windows, fill: float) -> tuple[Tensor, range]:
    """Pooling: the input with its windows as last axes, and those axes."""
    kernel = _kernel(c)
    x = places.pad(c, x, fill)
    shape, step = c.shape(), x.strides[2:]
    walk = tuple(s * t for s, t in zip(step, places.strides, strict=True))
    reach = tuple(s * d for s, d in zip(step, places.dilations, strict=True))
    seen = Tensor(x.buffer, x.offset, (*shape, *kernel), (*x.strides[:2], *walk, *reach), x.moves)
    return seen, range(len(shape), len(shape) + len(kernel))


def _kernel(c: NodeContext) -> tuple[int, ...]:
    return tuple(int(k) for k in c.attributes["kernel_shape"])


def _max_pool(c: NodeContext) -> Tensor:
    if len(c.node.output) > 1 and c.node.output[1]:
        raise TranslateError("its indices are used")
    x = c.x(0)
    seen, axes = _seen(c, x, windows(c, x, _kernel(c)), float("-inf"))
    return c.b.reduce("max", seen, axes, keep=False)


def _average_pool(c: NodeContext) -> Tensor:
    x, kernel = c.x(0), _kernel(c)
    places = windows(c, x, kernel)
    seen, axes = _seen(c, x, places, 0.0)
    total = c.b.reduce("sum", seen, axes, keep=False)
    counts = np.ones((1, 1), np.float32)  # how many positions of each window count
    for axis, wide in enumerate(kernel):
        size, padded = x.shape[2 + axis], c.integer("count_include_pad", 0)
        starts = np.arange(c.shape()[2 + axis]) * places.strides[axis] - places.before[axis]
        at = starts[:, None] + np.arange(wide) * places.dilations[axis]
        low = -places.before[axis] if padded else 0
        high = size + places.after[axis] if padded else size
        counts = counts[..., None] * ((at >= low) & (at < high)).sum(axis=1)
    if (counts == counts.flat[0]).all():
        return scaled(c.b, total, 1.0 / float(counts.flat[0]))
    return c.b.map([total, c.b.constant(counts)], lambda b, i: b.add("div", i[0], i[1]))


def _global_pool(c: NodeContext) -> Tensor:
    x = c.x(0)
    axes = range(2, len(x.shape))
    if c.op == "GlobalMaxPool":
        return c.b.reduce("max", x, axes, keep=True)
    return _mean(c, x, axes, keep=True)


RULES: dict[str, Callable[[NodeContext], Tensor]] = {
    **dict.fromkeys(_KINDS, _reduce),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MaxPool": _max_pool,
    "RMSNormalization": _layer_norm,
    "Softmax": _softmax,
}
