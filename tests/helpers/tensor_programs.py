"""Random programs of the kind that a translated model is: operations over small tensors, with
states, scratch that is used again, views that cross, and rows that come one after the other.

Entry points: `tensor_program`, a hypothesis strategy; `Poisoned`, a reference whose scratch holds
nothing between two sections; `stream`, its outputs on some rows.
"""

from __future__ import annotations

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
from tickrt.program.ir import FUNCTIONS, OUTPUT, ROWS
from tickrt.program.reference import Reference

SIZE, WINDOW = 12, 3
CONSTANTS, STATES, SCRATCH = ("c", "d"), ("s", "r"), ("t", "u", "v", "w", "x", "y")
_SHAPES = ((12,), (3, 4), (4, 3), (2, 6), (4,), (2, 2), ())
# What never hides that one of its arguments is no number.
_FUNCTIONS = ("add", "sub", "mul", "max", "min", "neg", "abs", "tanh", "floor")
Array = np.ndarray[Any, Any]


class Poisoned(Reference):
    """What scratch holds before a section writes it is no number."""

    def _poison(self) -> None:
        for name, buffer in self.program.buffers.items():
            if buffer.kind == "scratch":
                self.memory[name][:] = np.nan

    def submit(self, seq: int, row: Array) -> Array:
        self._poison()
        return super().submit(seq, row)

    def advance(self, seq: int, row: Array) -> None:
        self._poison()
        super().advance(seq, row)


def stream(made: StreamProgram, count: int = 7) -> Array:
    """Outputs of consecutive rows, a reset in between."""
    engine, outputs = Poisoned(made), []
    rows = np.random.default_rng(0).uniform(-1, 1, (count, SIZE)).astype(np.float32)
    for first in (0, 11):
        engine.reset()
        for seq, row in enumerate(rows, first):
            if seq - first >= made.warm:
                outputs.append(engine.submit(seq, row))
            engine.advance(seq, row)
    return np.stack(outputs)


def _buffers() -> dict[str, Buffer]:
    values = np.random.default_rng(1).uniform(-1, 1, (4, SIZE)).astype(np.float32)
    made = [Buffer(ROWS, 2 * WINDOW * SIZE, "rows"), Buffer(OUTPUT, SIZE, "output")]
    for kind, names in (("constant", CONSTANTS), ("state", STATES)):
        made += [Buffer(n, SIZE, kind, values[len(made) - 2]) for n in names]
    made += [Buffer(n, SIZE, "scratch") for n in SCRATCH]
    return {b.name: b for b in made}


def _program(sections: dict[str, list[Operation]]) -> StreamProgram:
    frozen = {name: tuple(ops) for name, ops in sections.items()}
    return StreamProgram(WINDOW, SIZE, SIZE, 2, 0, _buffers(), frozen, {"mode": "pre"})


@st.composite
def _view(draw: Any, loops: tuple[int, ...], names: tuple[str, ...], dense: bool = False) -> View:
    """Mostly whole tensors, at times turned, repeated, cut or backwards."""
    strides, step = [0] * len(loops), 1
    axes = list(range(len(loops)))
    if draw(st.integers(0, 3)) == 0 and not dense:
        axes.reverse()
    for axis in reversed(axes):
        strides[axis] = step
        step *= loops[axis]
    offset, name = 0, draw(st.sampled_from(names))
    if not dense and draw(st.integers(0, 3)) == 0:
        factor = draw(st.sampled_from((0, 2, 3, -1)))
        axis = draw(st.sampled_from(axes)) if axes else None
        if axis is not None:
            strides[axis] *= factor
        offset = draw(st.integers(0, SIZE - 1))
    moves = (Move("seq", SIZE, draw(st.integers(0, 2)), WINDOW),) if name == ROWS else ()
    return View(name, offset, tuple(strides), moves)


@st.composite
def _operation(draw: Any, sources: tuple[str, ...], targets: tuple[str, ...]) -> Operation:
    kind = draw(st.sampled_from(("map", "map", "map", "copy", "copy", "contract", "reduce", "for")))
    loops = draw(st.sampled_from(_SHAPES))
    target = draw(_view(loops, targets, dense=draw(st.booleans())))
    if kind == "copy":
        body = (Instruction("load", (0,)),)
        return Map(loops, (draw(_view(loops, sources)),), body, (target,), (0,), "copy")
    if kind in ("contract", "reduce"):
        folds = draw(st.sampled_from(((), (2,), (3,))))
        x = draw(_view((*loops, *folds), sources))
        if kind == "reduce":
            return Reduce(loops, folds, draw(st.sampled_from(("sum", "max"))), x, target, "reduce")
        y = draw(_view((*loops, *folds), sources))
        start = draw(st.one_of(st.none(), st.just(target), _view(loops, sources)))
        return Contract(loops, folds, x, y, target, start, "contract")
    inputs = [draw(_view(loops, sources)) for _ in range(draw(st.integers(1, 3)))]
    if draw(st.integers(0, 3)) == 0:
        inputs.append(target)  # in place
    lines = [Instruction("load", (i,)) for i in range(len(inputs))]
    for _ in range(draw(st.integers(1, 3))):
        function = draw(st.sampled_from(_FUNCTIONS))
        numbers = [draw(st.integers(0, len(lines) - 1)) for _ in range(FUNCTIONS[function])]
        lines.append(Instruction(function, tuple(numbers)))
    op = Map(loops, tuple(inputs), tuple(lines), (target,), (len(lines) - 1,), "map")
    return For("i", draw(st.integers(1, 3)), (op,), "again") if kind == "for" else op


@st.composite
def tensor_program(draw: Any) -> StreamProgram:
    """Sound, and its outputs come from nothing that was not written."""
    sections: dict[str, list[Operation]] = {"advance": [], "step": []}
    for name, operations in sections.items():
        known = [*CONSTANTS, *STATES, *([ROWS] if draw(st.booleans()) else [])]
        targets = (*SCRATCH, *(STATES if name == "advance" or draw(st.booleans()) else ()))
        for _ in range(draw(st.integers(3, 10))):
            operation = draw(_operation(tuple(known), targets))
            operations.append(operation)
            if not _fits(sections):
                operations.pop()
                continue
            inner = operation.body[0] if isinstance(operation, For) else operation
            written = inner.outputs if isinstance(inner, Map) else (inner.output,)  # type: ignore[union-attr]
            known += [v.buffer for v in written] * 2  # what is new is read more often
        for source in dict.fromkeys(reversed(known)):  # what was written last goes out
            target = OUTPUT if name == "step" else "s"
            body = (Instruction("load", (0,)),)
            for loops in ((12,), (4,), ()):
                strides = (1,) * len(loops)
                views = (View(source, 0, strides),), (View(target, 0, strides),)
                if source == ROWS:
                    break
                operations.append(Map(loops, views[0], body, views[1], (0,), "out"))
                if _fits(sections):
                    break
                operations.pop()
            else:
                continue
            break
    return _program(sections)


def _fits(sections: dict[str, list[Operation]]) -> bool:
    try:
        made = check(_program(sections))
    except EngineError:
        return False
    engine = Poisoned(made)
    for seq in range(4):
        row = np.ones(SIZE, np.float32)
        if seq >= made.warm:
            engine.submit(seq, row)
        engine.advance(seq, row)
        if not all(np.isfinite(engine.memory[n]).all() for n in (*STATES, OUTPUT)):
            return False
    return True
