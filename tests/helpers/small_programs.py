"""Small programs made by hand and by chance.

Entry points: `program`, `view`, `copy`; `any_program`, a hypothesis strategy of programs that may
or may not be sound; `sound_program`, of those that are and whose steps do something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tickrt.errors import EngineError
from tickrt.program import (
    Buffer,
    Contract,
    For,
    Instruction,
    Map,
    Move,
    Operation,
    Reduce,
    StreamProgram,
    View,
)
from tickrt.program.check import check
from tickrt.program.ir import FUNCTIONS, OUTPUT, REDUCTIONS, ROWS

WINDOW, WIDTH, OUTPUTS = 3, 2, 4
_SIZES = {"c": 6, "s": 5, "t": 8, "u": 12}


def buffers() -> dict[str, Buffer]:
    """Rows, outputs, a constant c, a state s, scratch t and u."""
    values = np.linspace(-1, 1, _SIZES["c"]).astype(np.float32)
    made = [
        Buffer(ROWS, 2 * WINDOW * WIDTH, "rows"),
        Buffer(OUTPUT, OUTPUTS, "output"),
        Buffer("c", _SIZES["c"], "constant", values),
        Buffer("s", _SIZES["s"], "state", np.full(_SIZES["s"], 0.5, np.float32)),
        Buffer("t", _SIZES["t"], "scratch"),
        Buffer("u", _SIZES["u"], "scratch"),
    ]
    return {b.name: b for b in made}


def program(*step: Operation, advance: tuple[Operation, ...] = (), **changes: Any) -> StreamProgram:
    """With these sections; `changes` are fields of the program."""
    sections = {"step": step, "advance": advance}
    made = StreamProgram(WINDOW, WIDTH, OUTPUTS, 2, 0, buffers(), sections, {"mode": "pre"})
    return replace(made, **changes)


def view(buffer: str, offset: int = 0, *strides: int, moves: tuple[Move, ...] = ()) -> View:
    return View(buffer, offset, strides, moves)


def copy(source: View, target: View, *loops: int) -> Map:
    """The same values somewhere else."""
    return Map(loops, (source,), (Instruction("load", (0,)),), (target,), (0,), "copy")


_EXACT = sorted(set(FUNCTIONS) - {"load", "value"})


@st.composite
def _view(draw: Any, loops: int, names: tuple[str, ...], indices: tuple[str, ...]) -> View:
    strides = draw(st.lists(st.integers(-3, 4), min_size=loops, max_size=loops))
    moves = ()
    if draw(st.integers(0, 4)) == 0:
        index = draw(st.sampled_from(("seq", *indices)))
        period = draw(st.sampled_from((0, 2, 3)))
        moves = (Move(index, draw(st.integers(-2, 2)), draw(st.integers(-1, 2)), period),)
    return View(draw(st.sampled_from(names)), draw(st.integers(0, 7)), tuple(strides), moves)


@st.composite
def _operation(draw: Any, depth: int, indices: tuple[str, ...] = ()) -> Operation:
    kind = draw(st.sampled_from(("map", "map", "map", "contract", "reduce", "for")))
    if kind == "for" and depth:
        index = f"i{depth}"
        inner = draw(st.lists(_operation(depth - 1, (*indices, index)), min_size=1, max_size=3))
        return For(index, draw(st.integers(1, 3)), tuple(inner))
    loops = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    sources, targets = ("c", "s", "t", "u", ROWS), ("s", "t", "u", OUTPUT)
    n = len(loops)
    if kind in ("map", "for"):
        inputs = draw(st.lists(_view(n, sources, indices), min_size=1, max_size=3))
        lines = [Instruction("load", (i,)) for i in range(len(inputs))]
        for _ in range(draw(st.integers(0, 3))):
            function = draw(st.sampled_from(_EXACT))
            numbers = [draw(st.integers(0, len(lines) - 1)) for _ in range(FUNCTIONS[function])]
            lines.append(Instruction(function, tuple(numbers)))
        outputs = draw(st.lists(_view(n, targets, indices), min_size=1, max_size=2))
        results = tuple(draw(st.integers(0, len(lines) - 1)) for _ in outputs)
        return Map(loops, tuple(inputs), tuple(lines), tuple(outputs), results)
    folds = tuple(draw(st.lists(st.integers(1, 3), max_size=1)))
    wide = n + len(folds)
    target = draw(_view(n, targets, indices))
    if kind == "reduce":
        kind = draw(st.sampled_from(REDUCTIONS))
        return Reduce(loops, folds, kind, draw(_view(wide, sources, indices)), target)
    start = draw(st.one_of(st.none(), _view(n, sources, indices)))
    a, b = draw(_view(wide, sources, indices)), draw(_view(wide, sources, indices))
    return Contract(loops, folds, a, b, target, start)


def any_program() -> st.SearchStrategy[StreamProgram]:
    """Sections of random operations."""
    sections = st.lists(_operation(2), max_size=5)
    return st.builds(lambda s, a: program(*s, advance=tuple(a)), sections, sections)


@st.composite
def sound_program(draw: Any, most: int = 8) -> StreamProgram:
    """Operations are put in one by one as long as the program stays sound; it ends with outputs."""
    sections: dict[str, list[Operation]] = {"step": [], "advance": []}
    for name, operations in sections.items():
        for _ in range(draw(st.integers(1, most))):
            candidate = draw(_operation(1))
            trial = {n: tuple(ops) for n, ops in sections.items()}
            trial[name] = (*operations, candidate)
            try:
                check(program(sections=trial))
            except EngineError:
                continue
            operations.append(candidate)
    written = {v.buffer for op in sections["step"] if isinstance(op, Map) for v in op.outputs}
    for name in sorted(written - {OUTPUT}):
        sections["step"].append(copy(view(name, 0, 1), view(OUTPUT, 0, 1), OUTPUTS))
    return check(program(sections={n: tuple(ops) for n, ops in sections.items()}))
