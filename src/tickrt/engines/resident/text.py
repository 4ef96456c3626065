"""C++ for views, expressions and single operations: `Place`, `expression`, `operation`.

An operation is written as a loop over its elements, which all threads that take part share: thread
`first` of `count` takes elements first, first + count, … A fold with few elements is shared by
neighbouring lanes and finished by shuffles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickrt.engines.resident.schedule import Schedule
from tickrt.program import Contract, For, Instruction, Map, Move, Operation, Reduce, View

__all__ = [
    "FOLDS",
    "Place",
    "Team",
    "by_parts",
    "column",
    "comment",
    "expression",
    "grouped_map",
    "lanes_of",
    "number",
    "operation",
    "strided",
    "tile",
    "turn",
]

FOLDS = {
    "sum": ("0.0f", "{0} + {1}"),
    "prod": ("1.0f", "{0} * {1}"),
    "max": ("-INFINITY", "larger({0}, {1})"),
    "min": ("INFINITY", "smaller({0}, {1})"),
}
_CALLS = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "__fdividef({0}, {1})",
    "max": "larger({0}, {1})",
    "min": "smaller({0}, {1})",
    "pow": "powf({0}, {1})",
    "less": "({0} < {1} ? 1.0f : 0.0f)",
    "equal": "({0} == {1} ? 1.0f : 0.0f)",
    "less_equal": "({0} <= {1} ? 1.0f : 0.0f)",
    "where": "({0} != 0.0f ? {1} : {2})",
    "neg": "(-{0})",
    "abs": "fabsf({0})",
    "exp": "exp_of({0})",
    "log": "logf({0})",
    "sqrt": "sqrtf({0})",
    "tanh": "tanh_of({0})",
    "sigmoid": "sigmoid_of({0})",
    "erf": "erff({0})",
    "floor": "floorf({0})",
    "ceil": "ceilf({0})",
    "round": "rintf({0})",
    "sin": "sinf({0})",
    "cos": "cosf({0})",
}


def comment(label: str) -> str:
    """A line that says what follows. A label is a model's own text: nothing of it may end the line,
    continue it on the next, or look like a block to `writer`."""
    return "// " + re.sub(r"[^ -z]|[?\\]", "_", label)


def number(value: float) -> str:
    """A float32 literal; a negative one may stand behind any sign."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(value))
    text += "f" if "." in text or "e" in text else ".0f"
    return f"({text})" if text.startswith("-") else text


@dataclass(frozen=True)
class Team:
    """The threads that share an operation: number of this thread, how many, and how many at most
    work on one fold."""

    first: str
    count: int
    lanes: int


class Place:
    """Where buffers lie: `near` (shared memory), `far` (global), constants."""

    def __init__(self, schedule: Schedule, near: bool) -> None:
        self.schedule, self.near = schedule, near

    def _base(self, name: str) -> tuple[str, int]:
        s = self.schedule
        if name in s.constants:
            return "constants", s.constants[name][0]
        if self.near:
            return "near", s.near[name][0]
        return "far", s.far[name][0]

    def index(self, view: View, indices: Sequence[str]) -> str:
        """The element's number in its space."""
        _, base = self._base(view.buffer)
        terms = [str(base + view.offset)]
        for stride, index in zip(view.strides, indices, strict=True):
            if stride == 1:
                terms.append(index)
            elif stride:
                terms.append(f"{index} * {stride}")
        terms += [_move(move) for move in view.moves]
        kept = [t for t in terms if t != "0"]
        return " + ".join(kept) or "0"

    def load(self, view: View, indices: Sequence[str]) -> str:
        """The element's value."""
        space, _ = self._base(view.buffer)
        text = f"{space}[{self.index(view, indices)}]"
        return f"__ldg(&{text})" if space == "constants" else text

    def store(self, view: View, indices: Sequence[str], value: str) -> str:
        """A statement."""
        space, _ = self._base(view.buffer)
        return f"{space}[{self.index(view, indices)}] = {value};"


def turn(move: Move) -> tuple[str, int, int] | None:
    """(name, shift, period) of where a row's number is in its turn; None for another move."""
    if move.index != "seq" or not move.stride:
        return None
    shift = move.shift % move.period  # C's remainder of a negative number is negative
    return f"turn_{shift}_{move.period}", shift, move.period


def _loop(index: str) -> str:
    """The C variable of a `For`, whatever its name is here."""
    return f"loop_{index}"


def _move(move: Move) -> str:
    if not move.stride:
        return "0"
    if found := turn(move):
        return f"{found[0]} * {move.stride}"
    shift = move.shift % move.period if move.period else move.shift
    inner = f"({_loop(move.index)} + {shift})" if shift else _loop(move.index)
    return f"{inner} % {move.period} * {move.stride}" if move.period else f"{inner} * {move.stride}"


def expression(
    body: Sequence[Instruction], load: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """(statements, name or literal of every line)."""
    statements, names = [], []
    for line, instruction in enumerate(body):
        if instruction.function == "value":
            names.append(number(float(instruction.arguments[0])))
            continue
        if instruction.function == "load":
            value = load(int(instruction.arguments[0]))
        else:
            value = _CALLS[instruction.function].format(
                *(names[int(a)] for a in instruction.arguments)
            )
        statements.append(f"const float v{line} = {value};")
        names.append(f"v{line}")
    return statements, names


def _indices(sizes: Sequence[int], element: str) -> tuple[list[str], list[str]]:
    """(statements, names) of the loop indices of one element."""
    if len(sizes) == 0:
        return [], []
    if len(sizes) == 1:
        return [], [element]
    lines, names, rest = [], [], element
    for axis in reversed(range(1, len(sizes))):
        lines.append(f"const int {element}_{axis} = {rest} % {sizes[axis]};")
        lines.append(f"const int {element}_r{axis} = {rest} / {sizes[axis]};")
        rest = f"{element}_r{axis}"
    names = [rest, *(f"{element}_{axis}" for axis in range(1, len(sizes)))]
    return lines, names


def _block(head: str, lines: Sequence[str]) -> list[str]:
    return [f"{head} {{", *("  " + line for line in lines), "}"]


def _map(op: Map, place: Place, team: Team) -> list[str]:
    lines, names = _indices(op.loops, "e")
    statements, values = expression(op.body, lambda i: place.load(op.inputs[i], names))
    lines += statements
    lines += [
        place.store(view, names, values[r]) for view, r in zip(op.outputs, op.results, strict=True)
    ]
    total = math.prod(op.loops)
    return _block(f"for (int e = {team.first}; e < {total}; e += {team.count})", lines)


def lanes_of(outputs: int, folds: int, threads: int, most: int = 32) -> int:
    """How many lanes share one output of a fold: a power of two."""
    lanes = 1
    while lanes * 2 <= min(most, folds) and outputs * lanes * 2 <= threads:
        lanes *= 2
    return lanes


def grouped_map(op: Map, place: Place, size: int, blocks: int, threads: int) -> list[str]:
    """A map whose last index is shared out by columns: see `shares.grouped`."""
    mine = op.loops[-1] // blocks
    outer = math.prod(op.loops[:-1])
    lines = [f"[[maybe_unused]] const int o = e / {mine}, c = e % {mine};"]
    begin, names = _indices(op.loops[:-1], "o")
    lines += [*begin, f"const int j = {column('c', size, blocks)};"]
    names = [*names, "j"]
    statements, values = expression(op.body, lambda i: place.load(op.inputs[i], names))
    lines += statements
    lines += [
        place.store(view, names, values[r]) for view, r in zip(op.outputs, op.results, strict=True)
    ]
    head = [comment(op.label)] if op.label else []
    return head + _block(f"for (int e = tid; e < {outer * mine}; e += {threads})", lines)


def column(local: str, size: int, blocks: int) -> str:
    """The column with number `local` of a block, where groups of `size` are shared out."""
    width = size // blocks
    return f"{local} / {width} * {size} + (int)rank * {width} + {local} % {width}"


def _fold(
    op: Contract | Reduce, place: Place, team: Team, term: Callable[[list[str]], str]
) -> list[str]:
    """A sum or another fold: `lanes` neighbours share an output, then shuffle."""
    outputs, folds = math.prod(op.loops), math.prod(op.folds)
    lanes = lanes_of(outputs, folds, team.count, team.lanes)
    kind = op.kind if isinstance(op, Reduce) else "sum"
    start, join = FOLDS[kind]
    element = "e" if lanes == 1 else f"(t / {lanes})"
    begin, names = _indices(op.loops, "o")
    inner, folded = _indices(op.folds, "k")
    first = "0" if lanes == 1 else f"t % {lanes}"
    # `larger` keeps NaN, so the value that a fold starts with may be one of its elements.
    body = [f"const int o = {element};" if lanes > 1 else "const int o = e;", *begin]
    body.append(f"float total = {start};")
    if isinstance(op, Contract) and _dense(op, place):
        body += _by_fours(op, place, names, (first, lanes))
    else:
        body += _block(
            f"for (int k = {first}; k < {folds}; k += {lanes})",
            [*inner, f"total = {join.format('total', term([*names, *folded]))};"],
        )
    step = lanes // 2
    while step:
        other = f"__shfl_xor_sync(mask, total, {step})"
        body.append(f"total = {join.format('total', other)};")
        step //= 2
    result = "total"
    if isinstance(op, Contract) and op.start is not None:
        result = f"total + {place.load(op.start, names)}"
    store = place.store(op.output, names, result)
    if lanes == 1:
        body.append(store)
        return _block(f"for (int e = {team.first}; e < {outputs}; e += {team.count})", body)
    body.append(f"if (t % {lanes} == 0) {store}")
    total = outputs * lanes
    head = f"for (int t = {team.first}; t < {total}; t += {team.count})"
    group = f"threadIdx.x % 32 / {lanes} * {lanes}"
    every = (1 << lanes) - 1
    mask = [f"const unsigned mask = {every}u << ({group});"]
    return _block(head, [*mask, *body])


def strided(op: Operation) -> bool:
    """True for a fold whose inputs lie far apart while its outputs are neighbours: lanes that share
    an output would read the same bank of shared memory, lanes with an output each do not."""
    if not isinstance(op, (Contract, Reduce)) or not op.loops or len(op.folds) != 1:
        return False
    if not 32 <= math.prod(op.loops) <= 256 or op.folds[0] < 16:
        return False
    views = [op.a, op.b] if isinstance(op, Contract) else [op.x]
    return any(view.strides[-1] % 8 == 0 and view.strides[-2] == 1 for view in views)


def by_parts(op: Operation, place: Place, threads: int, partial: str) -> list[str]:
    """Such a fold by a block: a thread has an output and a part of its inputs, a part has a row of
    `partial` sums; then these are joined."""
    assert isinstance(op, (Contract, Reduce))
    outputs, folds = math.prod(op.loops), op.folds[0]
    parts = threads // outputs
    start, join = FOLDS[op.kind if isinstance(op, Reduce) else "sum"]
    begin, names = _indices(op.loops, "o")
    if isinstance(op, Contract):
        a, b = (place.load(view, [*names, "k"]) for view in (op.a, op.b))
        step = f"total = fmaf({a}, {b}, total);"
    else:
        step = f"total = {join.format('total', place.load(op.x, [*names, 'k']))};"
    first = [f"const int o = tid % {outputs}, part = tid / {outputs};", *begin]
    first += [f"float total = {start};", "#pragma unroll 4"]
    first += _block(f"for (int k = part; k < {folds}; k += {parts})", [step])
    first.append(f"{partial}[tid] = total;")
    total = f"{partial}[o]"
    for part in range(1, parts):
        total = join.format(total, f"{partial}[{part * outputs} + o]")
    if isinstance(op, Contract) and op.start is not None:
        total = f"{total} + {place.load(op.start, names)}"
    then = [*begin, place.store(op.output, names, total)]
    return [
        *([comment(op.label)] if op.label else []),
        *_block(f"if (tid < {parts * outputs})", first),
        "__syncthreads();",
        *_block(f"for (int o = tid; o < {outputs}; o += {threads})", then),
    ]


def _dense(op: Contract, place: Place) -> bool:
    """True when both operands can be read four neighbours at a time along the fold."""
    if len(op.folds) != 1 or op.folds[0] % 4 or op.folds[0] < 32:
        return False
    return all(
        view.strides[-1] == 1 and _aligned(place, view, view.strides[:-1]) for view in (op.a, op.b)
    )


def _by_fours(
    op: Contract, place: Place, names: Sequence[str], lanes: tuple[str, int]
) -> list[str]:
    first, count = lanes
    a, b = (_wide(place.load(view, [*names, "k"]), 4) for view in (op.a, op.b))
    products = [f"total = fmaf(a.{c}, b.{c}, total);" for c in "xyzw"]
    return [
        "#pragma unroll 4",
        *_block(
            f"for (int k = 4 * ({first}); k < {op.folds[0]}; k += {4 * count})",
            [f"const float4 a = {a}, b = {b};", *products],
        ),
    ]


def tile(op: Operation) -> bool:
    """True for a product of many rows with a constant matrix that lies as [K, N]."""
    if not isinstance(op, Contract) or len(op.loops) != 2 or len(op.folds) != 1:
        return False
    (m, n), (a, b) = op.loops, (op.a.strides, op.b.strides)
    return m >= 8 and n % 4 == 0 and a[1] == 0 and b[0] == 0 and b[1] == 1 and op.folds[0] >= 4


def _wide(text: str, count: int) -> str:
    """Four neighbours at once, where `text` loads the first of them."""
    address = text[len("__ldg(") : -1] if text.startswith("__ldg(") else f"&{text}"
    loaded = f"*reinterpret_cast<const float{count} *>({address})"
    return (
        f"__ldg(reinterpret_cast<const float{count} *>({address}))" if "__ldg" in text else loaded
    )


def _aligned(place: Place, view: View, strides: Sequence[int]) -> bool:
    _, base = place._base(view.buffer)
    steps = [base + view.offset, *strides, *(move.stride for move in view.moves)]
    return all(step % 4 == 0 for step in steps)


def _tile(op: Contract, place: Place, team: Team) -> list[str]:
    """Each thread makes 4 × 4 outputs: four rows, four neighbouring columns."""
    (m, n), k = op.loops, op.folds[0]
    across = n // 4
    tiles = math.ceil(m / 4) * across
    lines = [f"const int m0 = e / {across} * 4, n0 = e % {across} * 4;", "float total[4][4];"]
    start = "0.0f"
    if op.start is not None:
        start = place.load(op.start, [f"min(m0 + i, {m - 1})", "(n0 + j)"])
    lines.append("#pragma unroll")
    lines += _block(
        "for (int i = 0; i < 4; i++)",
        ["#pragma unroll", f"for (int j = 0; j < 4; j++) total[i][j] = {start};"],
    )
    deep = k % 4 == 0 and op.a.strides[2] == 1 and _aligned(place, op.a, op.a.strides[:1])
    step = 4 if deep else 1
    inner = []
    for i in range(4):
        text = place.load(op.a, [f"min(m0 + {i}, {m - 1})", "0", "k"])
        inner.append(
            f"const float4 a{i} = {_wide(text, 4)};" if deep else f"const float a{i} = {text};"
        )
    wide = _aligned(place, op.b, op.b.strides[2:])
    for s, part in enumerate("xyzw"[:step]):
        loads = [place.load(op.b, ["0", f"(n0 + {j})", f"(k + {s})"]) for j in range(4)]
        if wide:
            inner.append(f"const float4 b{s} = {_wide(loads[0], 4)};")
        else:
            inner.append(f"const float4 b{s} = make_float4({', '.join(loads)});")
        for i in range(4):
            left = f"a{i}.{part}" if deep else f"a{i}"
            inner += [
                f"total[{i}][{j}] = fmaf({left}, b{s}.{column}, total[{i}][{j}]);"
                for j, column in enumerate("xyzw")
            ]
    lines += ["#pragma unroll 2", *_block(f"for (int k = 0; k < {k}; k += {step})", inner)]
    store = place.store(op.output, ["(m0 + i)", "(n0 + j)"], "total[i][j]")
    lines += [
        "#pragma unroll",
        *_block(
            "for (int i = 0; i < 4; i++)",
            ["#pragma unroll", f"for (int j = 0; j < 4; j++) if (m0 + i < {m}) {store}"],
        ),
    ]
    return _block(f"for (int e = {team.first}; e < {tiles}; e += {team.count})", lines)


def operation(op: Operation, place: Place, team: Team, sync: str) -> list[str]:
    """The statements of one operation; `sync` is written between those of a `For`."""
    if isinstance(op, For):
        body: list[str] = []
        for inner in op.body:
            body += [*operation(inner, place, team, sync), sync]
        i = _loop(op.index)
        return _block(f"for (int {i} = 0; {i} < {op.count}; {i}++)", body)
    head = [comment(op.label)] if op.label else []
    if isinstance(op, Map):
        return head + _map(op, place, team)
    if isinstance(op, Reduce):
        return head + _fold(op, place, team, lambda names: place.load(op.x, names))
    if tile(op):
        return head + _tile(op, place, team)

    def product(names: list[str]) -> str:
        return f"{place.load(op.a, names)} * {place.load(op.b, names)}"

    return head + _fold(op, place, team, product)
