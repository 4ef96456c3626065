"""Element-wise operators as expressions: one line of Python per operator.

To add one: an entry in `UNARY` (what it does with the number of its input's line), in `BINARY`, or
a rule of its own.

Source: ONNX operator specification, opset 13 … 21.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tickrt.engines.translate.builder import Body, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.tensors import Tensor

__all__ = ["RULES"]

Expression = Callable[[Body, int], int]


def _relu(b: Body, x: int) -> int:
    return b.add("max", x, b.value(0.0))


def _gelu(b: Body, x: int) -> int:
    inner = b.add("erf", b.add("mul", x, b.value(1.0 / math.sqrt(2.0))))
    return b.add("mul", b.add("mul", x, b.value(0.5)), b.add("add", inner, b.value(1.0)))


def _gelu_tanh(b: Body, x: int) -> int:
    cube = b.add("mul", b.add("mul", x, x), x)
    inner = b.add("add", x, b.add("mul", cube, b.value(0.044715)))
    bent = b.add("tanh", b.add("mul", inner, b.value(math.sqrt(2.0 / math.pi))))
    return b.add("mul", b.add("mul", x, b.value(0.5)), b.add("add", bent, b.value(1.0)))


def _softplus(b: Body, x: int) -> int:
    # log(1 + e^x) = max(x, 0) + log(1 + e^−|x|): no overflow
    small = b.add("exp", b.add("neg", b.add("abs", x)))
    return b.add("add", _relu(b, x), b.add("log", b.add("add", small, b.value(1.0))))


def _sign(b: Body, x: int) -> int:
    zero = b.value(0.0)
    sign = b.add("sub", b.add("less", zero, x), b.add("less", x, zero))
    return b.add("where", b.add("equal", x, x), sign, x)


def _not(b: Body, x: int) -> int:
    return b.add("equal", x, b.value(0.0))


def _differs(b: Body, x: int, y: int) -> int:
    return _not(b, b.add("equal", x, y))


UNARY: dict[str, Expression] = {
    "Abs": lambda b, x: b.add("abs", x),
    "Ceil": lambda b, x: b.add("ceil", x),
    "Cos": lambda b, x: b.add("cos", x),
    "Erf": lambda b, x: b.add("erf", x),
    "Exp": lambda b, x: b.add("exp", x),
    "Floor": lambda b, x: b.add("floor", x),
    "HardSwish": lambda b, x: b.add(
        "mul", x, _clip(b, b.add("add", b.add("mul", x, b.value(1 / 6)), b.value(0.5)), 0.0, 1.0)
    ),
    "IsNaN": lambda b, x: _differs(b, x, x),
    "Log": lambda b, x: b.add("log", x),
    "Mish": lambda b, x: b.add("mul", x, b.add("tanh", _softplus(b, x))),
    "Neg": lambda b, x: b.add("neg", x),
    "Not": _not,
    "Reciprocal": lambda b, x: b.add("div", b.value(1.0), x),
    "Relu": _relu,
    "Round": lambda b, x: b.add("round", x),
    "Sigmoid": lambda b, x: b.add("sigmoid", x),
    "Sign": _sign,
    "Sin": lambda b, x: b.add("sin", x),
    "Softplus": _softplus,
    "Softsign": lambda b, x: b.add("div", x, b.add("add", b.add("abs", x), b.value(1.0))),
    "Sqrt": lambda b, x: b.add("sqrt", x),
    "Tan": lambda b, x: b.add("div", b.add("sin", x), b.add("cos", x)),
    "Tanh": lambda b, x: b.add("tanh", x),
}
BINARY: dict[str, Callable[[Body, int, int], int]] = {
    "Add": lambda b, x, y: b.add("add", x, y),
    "And": lambda b, x, y: b.add("mul", x, y),
    "Div": lambda b, x, y: b.add("div", x, y),
    "Equal": lambda b, x, y: b.add("equal", x, y),
    "Greater": lambda b, x, y: b.add("less", y, x),
    "GreaterOrEqual": lambda b, x, y: b.add("less_equal", y, x),
    "Less": lambda b, x, y: b.add("less", x, y),
    "LessOrEqual": lambda b, x, y: b.add("less_equal", x, y),
    "Max": lambda b, x, y: b.add("max", x, y),
    "Min": lambda b, x, y: b.add("min", x, y),
    "Mul": lambda b, x, y: b.add("mul", x, y),
    "Or": lambda b, x, y: b.add("max", x, y),
    "Pow": lambda b, x, y: b.add("pow", x, y),
    "Sub": lambda b, x, y: b.add("sub", x, y),
    "Sum": lambda b, x, y: b.add("add", x, y),
    "Xor": _differs,
}


def _clip(b: Body, x: int, low: float, high: float) -> int:
    return b.add("min", b.add("max", x, b.value(low)), b.value(high))


def _unary(c: NodeContext) -> Tensor:
    expression = UNARY[c.op]
    return c.b.map([c.x(0)], lambda b, i: expression(b, i[0]))


def _binary(c: NodeContext) -> Tensor:
    expression = BINARY[c.op]
    if c.op == "Pow" and (power := c.value(1)) is not None and power.size == 1:
        return _power(c, float(power.ravel()[0]))
    total = c.x(0)
    for index in range(1, c.inputs):
        total = c.b.map([total, c.x(index)], lambda b, i: expression(b, i[0], i[1]))
    return total


def _power(c: NodeContext, power: float) -> Tensor:
    """Squares, cubes and roots are products and roots: exact for negative numbers, and quicker."""

    def body(b: Body, inputs: list[int]) -> int:
        x = inputs[0]
        if power == 0.5:
            return b.add("sqrt", x)
        if power in (1.0, 2.0, 3.0, 4.0):
            total = x
            for _ in range(int(power) - 1):
                total = b.add("mul", total, x)
            return total
        return b.add("pow", x, b.value(power))

    return c.b.reshape(c.b.map([c.x(0)], body), c.shape())


def _gelu_rule(c: NodeContext) -> Tensor:
    expression = _gelu_tanh if c.text("approximate", "none") == "tanh" else _gelu
    return c.b.map([c.x(0)], lambda b, i: expression(b, i[0]))


def _leaky(c: NodeContext) -> Tensor:
    alpha = c.number("alpha", 0.01)

    def body(b: Body, i: list[int]) -> int:
        below = b.add("mul", i[0], b.value(alpha))
        return b.add("where", b.add("less", i[0], b.value(0.0)), below, i[0])

    return c.b.map([c.x(0)], body)


def _prelu(c: NodeContext) -> Tensor:
    def body(b: Body, i: list[int]) -> int:
        below = b.add("mul", i[0], i[1])
        return b.add("where", b.add("less", i[0], b.value(0.0)), below, i[0])

    return c.b.map([c.x(0), c.x(1)], body)


def _exponential(c: NodeContext) -> Tensor:
    """Elu, Selu and Celu: what lies below zero is bent."""
    alpha = c.number("alpha", 1.67326319217681884765625 if c.op == "Selu" else 1.0)
    gamma = c.number("gamma", 1.05070102214813232421875) if c.op == "Selu" else 1.0
    inner = 1.0 / alpha if c.op == "Celu" else 1.0

    def body(b: Body, i: list[int]) -> int:
        x = i[0]
        zero = b.value(0.0)
        low = b.add("min", b.add("mul", x, b.value(inner)), zero)  # no overflow above zero
        bent = b.add("mul", b.add("sub", b.add("exp", low), b.value(1.0)), b.value(alpha * gamma))
        kept = b.add("mul", x, b.value(gamma))
        return b.add("where", b.add("less", x, zero), bent, kept)

    return c.b.map([c.x(0)], body)


def _hard_sigmoid(c: NodeContext) -> Tensor:
    alpha, beta = c.number("alpha", 0.2), c.number("beta", 0.5)

    def body(b: Body, i: list[int]) -> int:
        line = b.add("add", b.add("mul", i[0], b.value(alpha)), b.value(beta))
        return _clip(b, line, 0.0, 1.0)

    return c.b.map([c.x(0)], body)


def _clip_rule(c: NodeContext) -> Tensor:
    x = c.x(0)
    for index, function in ((1, "max"), (2, "min")):
        limit = c.value(index)
        if limit is not None:
            number = float(limit.ravel()[0])
            x = c.b.map([x], partial(_against, function=function, number=number))
        elif c.has(index):
            x = c.b.map([x, c.x(index)], partial(_against, function=function, number=None))
    return x


def _against(b: Body, i: list[int], function: str, number: float | None) -> int:
    return b.add(function, i[0], i[1] if number is None else b.value(number))


def _mean(c: NodeContext) -> Tensor:
    total = c.x(0)
    for index in range(1, c.inputs):
        total = c.b.map([total, c.x(index)], lambda b, i: b.add("add", i[0], i[1]))
    return c.b.map([total], lambda b, i: b.add("div", i[0], b.value(c.inputs)))


def _is_infinite(c: NodeContext) -> Tensor:
    signs = [s for s in ("positive", "negative") if c.integer(f"detect_{s}", 1)]

    def body(b: Body, i: list[int]) -> int:
        top = b.value(math.inf)
        x = {2: b.add("abs", i[0]), 1: i[0] if "positive" in signs else b.add("neg", i[0])}
        return b.add("equal", x[len(signs)], top) if signs else b.value(0.0)

    return c.b.map([c.x(0)], body)


def _shrink(c: NodeContext) -> Tensor:
    edge, bias = c.number("lambd", 0.5), c.number("bias", 0.0)

    def body(b: Body, i: list[int]) -> int:
        x = i[0]
        high = b.add("sub", x, b.value(bias))
        up = b.add("add", x, b.value(bias))
        low = b.add("where", b.add("less", x, b.value(-edge)), up, b.value(0.0))
        return b.add("where", b.add("less", b.value(edge), x), high, low)

    return c.b.map([c.x(0)], body)


def _thresholded(c: NodeContext) -> Tensor:
    alpha = c.number("alpha", 1.0)
    return c.b.map(
        [c.x(0)],
        lambda b, i: b.add("where", b.add("less", b.value(alpha), i[0]), i[0], b.value(0.0)),
    )


def _where(c: NodeContext) -> Tensor:
    return c.b.map([c.x(0), c.x(1), c.x(2)], lambda b, i: b.add("where", i[0], i[1], i[2]))


def _cast(c: NodeContext) -> Tensor:
    """Between float32 and truth values, which are 0 and 1 here."""
    to = c.output_dtype(0)
    if to == np.dtype(np.float32):
        return c.x(0)
    if to == np.dtype(np.bool_):
        return c.b.map([c.x(0)], lambda b, i: _not(b, _not(b, i[0])))
    raise TranslateError(f"it makes {to} of a value that depends on the rows")


RULES: dict[str, Callable[[NodeContext], Tensor]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _binary),
    "Cast": _cast,
    "CastLike": _cast,
    "Celu": _exponential,
    "Clip": _clip_rule,
    "Elu": _exponential,
    "Gelu": _gelu_rule,
    "HardSigmoid": _hard_sigmoid,
    "IsInf": _is_infinite,
    "LeakyRelu": _leaky,
    "Mean": _mean,
    "PRelu": _prelu,
    "Selu": _exponential,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
    "Where": _where,
}
