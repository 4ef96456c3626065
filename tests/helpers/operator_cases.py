"""Single nodes of every operator that has a rule: attributes, shapes, broadcasts, opsets.

Entry points: `CASES`; `SPECIAL`: inputs with infinities and numbers that are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from helpers.one_node import Case, const

_RNG = np.random.default_rng(3)


def x(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    return _RNG.uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def flags(*shape: int) -> Any:
    return _RNG.random(shape) < 0.5


ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -3.0, 88.0, -200.0], np.float32)

UNARY = "Abs Ceil Cos Erf Exp Floor Identity IsInf IsNaN Neg Reciprocal Relu Round Sigmoid Sign "
UNARY += "Sin Softplus Softsign Tan Tanh HardSwish Mish Elu Selu Celu HardSigmoid LeakyRelu "
UNARY += "ThresholdedRelu Shrink"
BINARY = "Add Sub Mul Div Max Min Pow Greater GreaterOrEqual Less LessOrEqual Equal PRelu"
SPECIAL = [Case(op, [ODD], opset=18) for op in UNARY.split() if op not in ("Cos", "Sin", "Tan")]
SPECIAL += [
    *(Case(op, [ODD[:, None], ODD[None]]) for op in ("Add", "Mul", "Max", "Min", "Less", "Equal")),
    Case("Clip", [ODD, np.float32(-1), np.float32(1)]),
    Case("Where", [const(np.array([True, False, True])), ODD[:3], ODD[3:6]]),
    Case("Softmax", [np.array([[np.nan, 1, 2], [np.inf, 1, 2], [-np.inf, 1, 2]], np.float32)]),
    Case("LogSoftmax", [np.array([[np.nan, 1, 2], [-np.inf, 1, 2]], np.float32)]),
    Case("ReduceMax", [np.array([[1, np.inf], [-np.inf, 2]], np.float32)], {"axes": [1]}),
    Case("ReduceLogSumExp", [np.array([[1, np.inf], [-np.inf] * 2], np.float32)], {"axes": [1]}),
    Case("Trilu", [np.full((3, 3), np.nan, np.float32)]),
    Case("Pow", [ODD, const(np.float32(2))]),
]


def _elementwise() -> Iterator[Case]:
    for op in UNARY.split():
        yield Case(op, [x(3, 4)], opset=18)
    yield Case("Log", [x(3, 4, low=0.1)])
    yield Case("Sqrt", [x(3, 4, low=0.1)])
    for op in BINARY.split():
        base = {"low": 0.2} if op == "Pow" else {}
        yield Case(op, [x(2, 3, 4, **base), x(3, 1)])
        if op != "PRelu":
            yield Case(op, [x(4, **base), x(2, 1, 4)])
            yield Case(op, [x(3, **base), const(x(2, 3))])
    for op in ("Max", "Min", "Sum", "Mean"):
        yield Case(op, [x(2, 3), x(3), x(2, 1)])
        yield Case(op, [x(2, 3)])
    for power in (0.5, 1.0, 2.0, 3.0, 4.0, -1.0, 1.7, 0.0):
        yield Case("Pow", [x(5, low=0.1), const(np.float32(power))])
    yield Case("Pow", [x(), const(x(1, low=1.0))])
    yield Case("Pow", [x(4), const(np.array(3, np.int64))])
    yield Case("Pow", [const(x(4, low=0.5)), x(4)])
    for alpha in (0.5, 2.0):
        for op in ("Elu", "Celu", "LeakyRelu", "ThresholdedRelu"):
            yield Case(op, [x(9)], {"alpha": alpha})
    yield Case("Selu", [x(9)], {"alpha": 1.2, "gamma": 0.7})
    yield Case("HardSigmoid", [x(9, low=-9.0, high=9.0)], {"alpha": 0.3, "beta": 0.2})
    yield Case("Shrink", [x(9)], {"lambd": 0.7, "bias": 0.2})
    for approximate in ("none", "tanh"):
        yield Case("Gelu", [x(9, low=-5.0)], {"approximate": approximate}, opset=20)
    for detect in ((0, 1), (1, 0), (0, 0)):
        names = {"detect_positive": detect[0], "detect_negative": detect[1]}
        yield Case("IsInf", [ODD], names)
    low, high = np.float32(-0.5), np.float32(0.7)
    for limits in ([const(low), const(high)], [None, const(high)], [const(low)], [], [low, high]):
        yield Case("Clip", [x(3, 4), *limits])
    yield Case("Where", [const(flags(2, 1, 3)), x(4, 1), x(3)])
    yield Case("Cast", [x(3)], {"to": 1})
    yield Case("Cast", [ODD], {"to": 9})
    yield Case("CastLike", [x(3), const(np.zeros(1, np.float32))], opset=19)
    yield Case("Dropout", [x(3, 4)])


def _linear() -> Iterator[Case]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (6, 4, 2)),
        ((6, 3, 4), (4,)),
        ((1, 4), (3, 4, 1)),
    ]
    for a, b in shapes:
        yield Case("MatMul", [x(*a), x(*b)])
        yield Case("MatMul", [x(*a), const(x(*b))])
    for left in (0, 1):
        for right in (0, 1):
            a, b = (4, 3) if left else (3, 4), (5, 4) if right else (4, 5)
            names = {"transA": left, "transB": right, "alpha": 0.3, "beta": 2.0}
            for bias in ((5,), (3, 1), (), (3, 5), (1, 5)):
                yield Case("Gemm", [x(*a), const(x(*b)), x(*bias)], names)
            yield Case("Gemm", [x(*a), x(*b)], names)
    yield Case("Gemm", [x(1, 4), const(x(4, 3)), const(x(3))])
    equations = {
        "ij,jk->ik": ((2, 3), (3, 4)),
        "bij,bjk->bik": ((2, 2, 3), (2, 3, 4)),
        "bhid,bhjd->bhij": ((1, 2, 3, 4), (1, 2, 5, 4)),
        "ij,jk": ((2, 3), (3, 4)),
        "ba,b": ((2, 3), (2,)),
        "i,j->ij": ((3,), (4,)),
        "ij,ij->": ((3, 4), (3, 4)),
        "ii->i": ((3, 3),),
        "iij->j": ((3, 3, 2),),
        "ii->": ((3, 3),),
        "ij->ji": ((3, 4),),
        "ijk->k": ((2, 3, 4),),
        "iij,jk->ik": ((3, 3, 2), (2, 4)),
        "ik,kk->i": ((3, 4), (4, 4)),
        "ij,kj->ik": ((1, 3), (2, 3)),
    }
    for equation, operands in equations.items():
        yield Case("Einsum", [x(*s) for s in operands], {"equation": equation})
    for exclusive in (0, 1):
        for reverse in (0, 1):
            names = {"exclusive": exclusive, "reverse": reverse}
            yield Case("CumSum", [x(2, 5, 3), np.array(1, np.int64)], names)
    yield Case("CumSum", [x(4), np.array(-1, np.int32)])


def _conv() -> Iterator[Case]:
    yield Case("Conv", [x(1, 3, 9), const(x(4, 3, 3)), const(x(4))])
    yield Case("Conv", [x(2, 3, 9), x(4, 3, 3), x(4)])
    yield Case("Conv", [x(1, 4, 9), const(x(6, 2, 3))], {"group": 2, "pads": [2, 0]})
    yield Case("Conv", [x(1, 4, 9), const(x(4, 1, 3)), const(x(4))], {"group": 4})
    yield Case("Conv", [x(1, 3, 12), const(x(2, 3, 3))], {"dilations": [2], "strides": [2]})
    yield Case(
        "Conv",
        [x(1, 2, 7, 8), const(x(4, 2, 3, 2)), const(x(4))],
        {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 2, 1]},
    )
    yield Case("Conv", [x(1, 2, 4, 5, 4), const(x(2, 2, 2, 2, 2))])
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for stride in (1, 2):
            names = {"auto_pad": auto, "strides": [stride, stride]}
            yield Case("Conv", [x(1, 2, 7, 6), const(x(3, 2, 3, 4))], names)
            pool = {**names, "kernel_shape": [3, 2]}
            yield Case("MaxPool", [x(1, 2, 7, 6)], pool)
            yield Case("AveragePool", [x(1, 2, 7, 6)], pool)
    for ceil in (0, 1):
        for pads in ([0, 0], [1, 1], [1, 0]):
            names = {"kernel_shape": [3], "strides": [2], "pads": pads, "ceil_mode": ceil}
            for length in (7, 8):
                yield Case("MaxPool", [x(1, 2, length)], names)
                for count in (0, 1):
                    more = {**names, "count_include_pad": count}
                    yield Case("AveragePool", [x(1, 2, length)], more, opset=19)
    yield Case("MaxPool", [x(1, 2, 9)], {"kernel_shape": [3], "dilations": [2]})
    yield Case("AveragePool", [x(1, 2, 9)], {"kernel_shape": [3], "dilations": [2]}, opset=19)
    yield Case("AveragePool", [x(1, 1, 5, 6)], {"kernel_shape": [2, 3], "pads": [1, 2, 0, 1]})
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Case(op, [x(2, 3, 4, 5)])


def _reduce() -> Iterator[Case]:
    kinds = "Max Min Prod Sum Mean SumSquare L1 L2 LogSum LogSumExp"
    for kind in kinds.split():
        op, value = f"Reduce{kind}", x(2, 3, 4, low=0.1 if kind == "LogSum" else -2.0)
        for keep in (0, 1):
            for opset in (13, 18):
                axes = [[1], [0, -1], None] if keep else [[-2], None]
                for chosen in axes:
                    attribute = opset == 13 and kind != "Sum" and chosen is not None
                    names = {"keepdims": keep, **({"axes": chosen} if attribute else {})}
                    given = [] if attribute or chosen is None else [ints(*chosen)]
                    yield Case(op, [value, *given], names, opset=opset)
    yield Case("ReduceSum", [x(2, 3)], {"noop_with_empty_axes": 1}, opset=13)
    for axis in (-1, 0, 1):
        for op in ("Softmax", "LogSoftmax"):
            yield Case(op, [x(2, 3, 4, high=50.0)], {"axis": axis}, opset=13)


def _norm() -> Iterator[Case]:
    for axis, shape in ((-1, (4,)), (1, (3, 4)), (2, (4,))):
        yield Case("LayerNormalization", [x(2, 3, 4), x(*shape), x(*shape)], {"axis": axis})
    yield Case("LayerNormalization", [x(2, 4), x(4)], {"epsilon": 0.1})
    yield Case("RMSNormalization", [x(2, 3, 4), x(4)], {"axis": -1, "epsilon": 0.01}, opset=23)
    yield Case("InstanceNormalization", [x(2, 3, 4, 5), x(3), x(3)])
    yield Case("GroupNormalization", [x(2, 6, 4), x(6), x(6)], {"num_groups": 2}, opset=21)
    yield Case("GroupNormalization", [x(2, 6, 4), x(2), x(2)], {"num_groups": 2}, opset=18)
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 2)):
        statistics = [const(x(3)), const(x(3)), const(x(3)), const(x(3, low=0.1))]
        yield Case("BatchNormalization", [x(*shape), *statistics], {"epsilon": 1e-3})


def _recurrent() -> Iterator[Case]:
    h, f, batch = 3, 2, 2
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction in ("forward", "reverse", "bidirectional"):
            d = 2 if direction == "bidirectional" else 1
            weights = [const(x(d, gates * h, f)), const(x(d, gates * h, h))]
            bias, states = const(x(d, 2 * gates * h)), [x(d, batch, h) for _ in range(2)]
            given = states if op == "LSTM" else states[:1]
            names: dict[str, Any] = {"hidden_size": h, "direction": direction}
            outputs = 3 if op == "LSTM" else 2
            for before in (0, 1) if op == "GRU" else (0,):
                more = {**names, **({"linear_before_reset": before} if op == "GRU" else {})}
                for steps in (1, 4):
                    data = x(steps, batch, f)
                    yield Case(op, [data, *weights, bias, None, *given], more, outputs)
                    yield Case(op, [data, *weights], more, outputs)
            yield Case(op, [x(4, 1, f), *weights, bias], names, ("", "y1"))


def _shape() -> Iterator[Case]:
    yield Case("Reshape", [x(2, 3, 4), ints(0, -1)])
    yield Case("Reshape", [x(2, 3, 4), ints(4, 1, 6)])
    yield Case("Flatten", [x(2, 3, 4)], {"axis": 2})
    yield Case("Squeeze", [x(1, 3, 1), ints(0)])
    yield Case("Squeeze", [x(1, 3, 1)])
    yield Case("Unsqueeze", [x(2, 3), ints(0, -1)])
    yield Case("Transpose", [x(2, 3, 4)], {"perm": [2, 0, 1]})
    yield Case("Transpose", [x(2, 3, 4)])
    yield Case("Concat", [x(2, 3), const(x(2, 1)), x(2, 2)], {"axis": -1})
    yield Case("Concat", [x(2, 3), x(1, 3)], {"axis": 0})
    for slices in (
        [ints(1), ints(3), ints(1)],
        [ints(-1), ints(-100), ints(1), ints(-1)],
        [ints(4), ints(-6), ints(1), ints(-2)],
        [ints(0, 1), ints(2, 2**62), ints(0, -1), ints(1, 2)],
        [ints(-2), ints(np.iinfo(np.int64).max), ints(-1)],
        [ints(3), ints(np.iinfo(np.int64).min), ints(1), ints(-1)],
        [ints(100), ints(-100), ints(1), ints(-3)],
        [ints(0, 0), ints(1, 2)],
    ):
        yield Case("Slice", [x(2, 5, 4), *slices])
    for opset, names in ((13, {}), (18, {"num_outputs": 3})):
        yield Case("Split", [x(2, 7 if opset == 18 else 6)], {"axis": 1, **names}, 3, opset)
    yield Case("Split", [x(2, 7), ints(1, 4, 2)], {"axis": -1}, 3)
    lists = [ints(1), ints(0, 2, 4), ints(3, 3, 3), ints(4, 0, 1, 1), ints(-1, -2)]
    for indices in [np.int64(-1), *lists]:
        yield Case("Gather", [x(2, 5, 3), const(np.asarray(indices))], {"axis": 1})
    yield Case("Gather", [x(4, 3), const(np.array([[0, 3], [1, 1]]))])
    indices = np.array([[0, -1, 1], [2, 0, 0]])
    yield Case("GatherElements", [x(3, 3), const(indices)])
    yield Case("GatherElements", [x(2, 4), const(indices)], {"axis": 1})
    yield Case("GatherND", [x(2, 3, 4), const(np.array([[0, 1], [1, -1]]))])
    yield Case("Expand", [x(3, 1), ints(2, 1, 4)])
    yield Case("Expand", [x(3, 4), ints(1)])
    yield Case("Tile", [x(2, 3), ints(2, 3)])
    yield Case("Tile", [x(2, 1, 3), ints(1, 4, 1)])
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", [x(2, 4, 3), ints(0, 1, 2, 0, 2, 1)], {"mode": mode})
    yield Case("Pad", [x(2, 4), ints(0, -1, 1, -2)])
    yield Case("Pad", [x(2, 4), ints(0, -1, 0, 3), const(np.float32(-1.5))])
    yield Case("Pad", [x(2, 4), ints(0, 0, 0, 0)])
    yield Case("Pad", [x(2, 4), ints(2, 1), const(np.float32(3)), ints(-1)], opset=18)
    yield Case("Pad", [x(2, 4), ints(0, 2, 0, 3)], {"mode": "wrap"}, opset=19)
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", [x(1, 8, 2, 3)], {"blocksize": 2, "mode": mode})
    yield Case("SpaceToDepth", [x(1, 2, 4, 6)], {"blocksize": 2})
    for upper in (0, 1):
        yield Case("Trilu", [x(2, 3, 4)], {"upper": upper})
        yield Case("Trilu", [x(4, 3), np.array(-1, np.int64)], {"upper": upper})


CASES = [
    *_elementwise(),
    *_linear(),
    *_conv(),
    *_reduce(),
    *_norm(),
    *_recurrent(),
    *_shape(),
]
