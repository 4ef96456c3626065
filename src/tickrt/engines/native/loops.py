"""`Map` and `Reduce` as plain C loops that the compiler turns into vector code.

Entry points: `write_map`, `write_reduce`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tickrt.engines.native.writer import Writer, terms
from tickrt.program import Map, Reduce, View

__all__ = ["number", "write_map", "write_reduce"]

_FUNCTIONS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "max": "max_({}, {})",
    "min": "min_({}, {})",
    "pow": "powf({}, {})",
    "less": "(float)({} < {})",
    "equal": "(float)({} == {})",
    "less_equal": "(float)({} <= {})",
    "where": "{} != 0.0f ? {} : {}",
    "neg": "-{}",
    "abs": "__builtin_fabsf({})",
    "exp": "exp_({})",
    "log": "log_({})",
    "sqrt": "__builtin_sqrtf({})",
    "tanh": "tanh_({})",
    "sigmoid": "sigmoid_({})",
    "erf": "erf_({})",
    "floor": "__builtin_floorf({})",
    "ceil": "__builtin_ceilf({})",
    "round": "__builtin_rintf({})",
    "sin": "sinf({})",
    "cos": "cosf({})",
}
_FEW = 4  # turns for which a vector does not pay


def number(value: float) -> str:
    """A float32 as C writes it, exactly."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return float(np.float32(value)).hex() + "f"


def _innermost(sizes: Sequence[int], views: Sequence[View]) -> list[int]:
    """Loops in an order that ends with the one along which most views have neighbours."""

    def worth(i: int) -> tuple[float, int]:
        near = sum(2 if v.strides[i] == 1 else v.strides[i] == 0 for v in views)
        return near * (0.25 if sizes[i] < _FEW else 1.0), i

    last = max(range(len(sizes)), key=worth, default=None)
    return [i for i in range(len(sizes)) if i != last] + ([] if last is None else [last])


def write_map(w: Writer, op: Map) -> None:
    """Load, compute, store, for every element."""
    order = _innermost(op.loops, [*op.outputs, *op.inputs])
    names = [f"n{i}" for i in range(len(op.loops))]
    for i, view in enumerate(op.inputs):
        w.line(f"const float *x{i} = {w.address(view)};")
    for i, view in enumerate(op.outputs):
        w.line(f"float *y{i} = {w.address(view)};")
    outer, inner = order[:-1], order[-1:]
    with w.loops([names[i] for i in outer], [op.loops[i] for i in outer]):
        if inner:
            w.line("INDEPENDENT")
        with w.loops([names[i] for i in inner], [op.loops[i] for i in inner]):
            for line, instruction in enumerate(op.body):
                arguments = instruction.arguments
                if instruction.function == "load":
                    i = int(arguments[0])
                    text = f"x{i}[{terms(names, op.inputs[i].strides)}]"
                elif instruction.function == "value":
                    text = number(float(arguments[0]))
                else:
                    values = [f"v{a}" for a in arguments]
                    text = _FUNCTIONS[instruction.function].format(*values)
                w.line(f"const float v{line} = {text};")
            for i, (view, result) in enumerate(zip(op.outputs, op.results, strict=True)):
                w.line(f"y{i}[{terms(names, view.strides)}] = v{result};")


def write_reduce(w: Writer, op: Reduce) -> None:
    """Along the fold in vectors where it has neighbours, else along a loop."""
    n = len(op.loops)
    names = [f"n{i}" for i in range(n)]
    w.line(f"const float *x = {w.address(op.x)};")
    w.line(f"float *y = {w.address(op.output)};")
    place = f"y[{terms(names, op.output.strides)}]"
    if op.x.strides[-1] == 1 and op.folds[-1] >= 16:
        with w.loops(names, op.loops):
            _along_fold(w, op, names, place)
        return
    order = _innermost(op.loops, [op.output, View("", 0, op.x.strides[:n])])
    # Where the output lies in what is read, or there is nothing to go along: one sum at a time.
    if op.output.buffer == op.x.buffer or not order:
        with w.loops(names, op.loops):
            _one_by_one(w, op, names, place)
        return
    outer, inner = order[:-1], order[-1:]
    folds = [f"k{i}" for i in range(len(op.folds))]
    element = f"x[{terms([*names, *folds], op.x.strides)}]"
    first = f"x[{terms(names, op.x.strides[:n])}]"
    with w.loops([names[i] for i in outer], [op.loops[i] for i in outer]):
        for text, sizes in (
            (f"{place} = {first};", ()),
            (f"{place} = {op.kind}_({place}, {element});", op.folds),
        ):
            with w.loops(folds[: len(sizes)], sizes):
                if sizes:
                    taken = " && ".join(f"{k} == 0" for k in folds)
                    w.line(f"if ({taken}) continue;")
                w.line("INDEPENDENT")
                with w.loops([names[i] for i in inner], [op.loops[i] for i in inner]):
                    w.line(text)


def _one_by_one(w: Writer, op: Reduce, names: Sequence[str], place: str) -> None:
    folds = [f"k{i}" for i in range(len(op.folds))]
    first = terms(names, op.x.strides[: len(names)])
    start = {"sum": "0.0f", "prod": "1.0f"}.get(op.kind, f"x[{first}]")
    w.line(f"float fold = {start};")
    with w.loops(folds, op.folds):
        w.line(f"fold = {op.kind}_(fold, x[{terms([*names, *folds], op.x.strides)}]);")
    w.line(f"{place} = fold;")


def _along_fold(w: Writer, op: Reduce, names: Sequence[str], place: str) -> None:
    """16 folds side by side, then they are folded, then the rest."""
    folds = [f"k{i}" for i in range(len(op.folds))]
    last = op.folds[-1]
    whole = last // 16 * 16
    base = terms([*names, *folds[:-1]], op.x.strides[:-1])
    first = terms(names, op.x.strides[: len(names)])
    w.line("float fold[LANES];")
    start = {"sum": "0.0f", "prod": "1.0f"}.get(op.kind, f"x[{first} + i]")
    w.line(f"for (int i = 0; i < LANES; i++) fold[i] = {start};")
    with w.loops(folds[:-1], op.folds[:-1]):
        w.line(f"const float *p = x + {base};")
        w.line(f"for (long k = 0; k < {whole}; k += LANES)")
        w.line(f"    for (int i = 0; i < LANES; i++) fold[i] = {op.kind}_(fold[i], p[k + i]);")
        if last > whole:
            w.line(f"for (int i = 0; i < {last - whole}; i++)")
            w.line(f"    fold[i] = {op.kind}_(fold[i], p[{whole} + i]);")
    w.line("for (int half = LANES / 2; half > 0; half /= 2)")
    w.line(f"    for (int i = 0; i < half; i++) fold[i] = {op.kind}_(fold[i], fold[i + half]);")
    w.line(f"{place} = fold[0];")
