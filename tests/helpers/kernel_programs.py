"""Programs by chance for kernels: every function, every reduction, sizes that do not divide evenly.

Entry points: `kernel_program(seed)`, sound, with states and a step that a kernel can run; `Layers`,
products put together by hand; `expected`, what a program's reference answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from tickrt.program.reference import Reference

__all__ = ["Layers", "expected", "kernel_program"]

# Functions whose results jump, or are far from those of a GPU near a pole, where theirs do not.
_SMOOTH = sorted(set(FUNCTIONS) - {"load", "value", "floor", "ceil", "round", "less", "equal"})
_NAMES = {"c": "constant", "m": "constant", "s": "state", "p": "state", "t": "scratch"}
_SIZES = {"c": 70, "m": 9000, "s": 130, "p": 40, "t": 700, "u": 90, "w": 8}


class _Maker:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.window, self.width = self.pick(2, 6), self.pick(1, 70)
        self.outputs = self.pick(1, 8)
        self.warm = self.pick(0, self.window + 1)
        self.idle = self.pick(0, self.warm + 1)
        values = {n: self.rng.normal(0, 0.3, size).astype(np.float32) for n, size in _SIZES.items()}
        made = [Buffer(ROWS, 2 * self.window * self.width, "rows")]
        made.append(Buffer(OUTPUT, self.outputs, "output"))
        for name, size in _SIZES.items():
            kind = _NAMES.get(name, "scratch")
            start = values[name] if kind in ("constant", "state") else None
            made.append(Buffer(name, size, kind, start))
        self.buffers = {b.name: b for b in made}

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def choose(self, *items: Any) -> Any:
        return items[self.pick(0, len(items))]

    def view(
        self, section: str, sizes: tuple[int, ...], names: tuple[str, ...], index: str
    ) -> View:
        name = self.choose(*names)
        strides: list[int] = []
        inner = 1
        for n in reversed(sizes):
            strides.insert(0, self.choose(inner, inner, inner, 0, -inner, 2))
            inner *= n
        lowest = -sum(min(0, s * (n - 1)) for s, n in zip(strides, sizes, strict=True))
        offset = lowest + self.choose(0, 0, self.pick(0, 5))
        moves: tuple[Move, ...] = ()
        if name == ROWS and (section == "step" or self.idle < self.window - 1):
            highest = offset + sum(max(0, s * (n - 1)) for s, n in zip(strides, sizes, strict=True))
            if highest >= self.width:  # it would be an older row's
                return self.view(section, sizes, ("c", "t"), index)
            moves = (Move("seq", self.width, 0, self.window),)
        elif self.pick(0, 4) == 0:
            moves = (Move("seq", self.choose(1, 3), self.pick(-2, 3), self.pick(2, 4)),)
        if index and self.pick(0, 2) and name != ROWS:
            moves += (Move(index, self.choose(1, 2), self.pick(-1, 3), self.choose(0, 3)),)
        return View(name, offset, tuple(strides), moves)

    def operation(self, section: str, depth: int = 1, index: str = "") -> Operation:
        sources = ("c", "s", "p", "t", "u", ROWS)
        targets = ("t", "u", OUTPUT) if section == "step" else ("t", "u", "s", "p")
        kind = self.choose("map", "map", "map", "contract", "matrix", "reduce", "for")
        if kind == "for" and depth:
            body = [self.operation(section, 0, "e") for _ in range(self.pick(1, 3))]
            return For("e", self.pick(1, 4), tuple(body))
        if kind == "matrix":
            return self.matrix(section, sources, targets)
        loops = self.choose((), (self.pick(1, 9),), (self.pick(1, 60),), (self.pick(1, 9), 7))
        if kind in ("map", "for"):
            return self.map(section, loops, (sources, targets), index)
        folds = self.choose((self.pick(1, 40),), (self.pick(1, 5), 3))
        wide = loops + folds
        out = self.view(section, loops, targets, index)
        a = self.view(section, wide, sources, index)
        if kind == "reduce":
            return Reduce(loops, folds, self.choose(*REDUCTIONS), a, out, "a\nreduction")
        start = self.view(section, loops, sources, index) if self.pick(0, 2) else None
        return Contract(loops, folds, a, self.view(section, wide, sources, index), out, start, "\\")

    def matrix(self, section: str, sources: Any, targets: Any) -> Operation:
        """A product with a constant matrix: of one row, or of many."""
        k = self.choose(12, 32, 40, self.pick(1, 50))
        n = self.choose(16, 32, self.pick(1, 180))
        many = self.pick(8, 12) if section != "step" and self.pick(0, 2) else 0
        name = self.choose("s", "p", "t", "u", ROWS)
        x = self.view(section, (), (name,), "")
        k = min(k, self.width) if name == ROWS else k
        a = View(name, self.choose(0, 4, 1) if name != ROWS else 0, (0, 1), x.moves)
        b, out = View("m", self.pick(0, 9), (k, 1)), View(self.choose(*targets), 0, (1,))
        start = View("c", 1, (0,)) if self.pick(0, 2) else None
        if not many:
            return Contract((n,), (k,), a, b, out, start, "/* a product")
        k, n = min(k, 20), min(n, 32)
        a = View("t", a.offset, (k, 0, 1))
        b, out = View("m", b.offset, (0, k, 1)), View("t", 350, (n, 1))
        start = View("c", 1, (0, 1)) if start else None
        return Contract((many, n), (k,), a, b, out, start, "many */ rows")

    def map(self, section: str, loops: Any, names: Any, index: str) -> Map:
        inputs = [self.view(section, loops, names[0], index) for _ in range(self.pick(1, 4))]
        lines = [Instruction("load", (i,)) for i in range(len(inputs))]
        lines.append(Instruction("value", (self.choose(-1.5, 2.0, 0.25, -0.0),)))
        for _ in range(self.pick(0, 5)):
            function = self.choose(*_SMOOTH)
            numbers = tuple(self.pick(0, len(lines)) for _ in range(FUNCTIONS[function]))
            lines.append(Instruction(function, numbers))
        lines.append(Instruction("tanh", (len(lines) - 1,)))  # what goes round stays small
        outputs = [self.view(section, loops, names[1], index) for _ in range(self.pick(1, 3))]
        results = tuple(self.pick(0, len(lines)) for _ in outputs[1:])
        return Map(
            loops, tuple(inputs), tuple(lines), tuple(outputs), (len(lines) - 1, *results), "{"
        )

    def program(self, sections: dict[str, list[Operation]]) -> StreamProgram:
        made = {name: tuple(operations) for name, operations in sections.items()}
        return StreamProgram(
            self.window,
            self.width,
            self.outputs,
            self.warm,
            self.idle,
            self.buffers,
            made,
            {"model": "by\nchance"},
        )

    def make(self, tries: int) -> StreamProgram:
        first = [self.whole(name, size) for name, size in (("t", 700), ("u", 90))]
        sections: dict[str, list[Operation]] = {"step": [*first], "advance": [*first]}
        for name, operations in sections.items():
            for _ in range(tries):
                operations.append(self.operation(name))
                try:
                    check(self.program(sections))
                except EngineError:
                    operations.pop()
        step = sections["step"]
        for source, kind, target in (("t", "max", OUTPUT), ("u", "min", "w")):  # all of it is seen
            folds = (_SIZES[source] // self.outputs,)
            x, out = View(source, 0, (1, self.outputs)), View(target, 0, (1,))
            step.append(Reduce((self.outputs,), folds, kind, x, out, "seen"))
        step.append(self.sum_of(View(OUTPUT, 0, (1,)), View("w", 0, (1,))))
        return check(self.program(sections))

    def sum_of(self, a: View, b: View) -> Map:
        lines = (Instruction("load", (0,)), Instruction("load", (1,)), Instruction("add", (0, 1)))
        return Map((self.outputs,), (a, b), lines, (View(OUTPUT, 0, (1,)),), (2,), "sum")

    def whole(self, name: str, size: int) -> Map:
        """Every element of a scratch buffer is something."""
        lines = (Instruction("load", (0,)), Instruction("value", (0.5,)))
        lines += (Instruction("mul", (0, 1)),)
        return Map((size,), (View("m", 3, (1,)),), lines, (View(name, 0, (1,)),), (2,), "whole")


def kernel_program(seed: int, tries: int = 12) -> StreamProgram:
    """A sound program whose step reads the newest row and the states, and writes outputs."""
    return _Maker(seed).make(tries)


class Layers:
    """A program of products with constant matrices, put together one by one."""

    def __init__(self, width: int, window: int = 4) -> None:
        self.width, self.window = width, window
        self.rng = np.random.default_rng(width)
        self.row = View(ROWS, 0, (0, 1), (Move("seq", width, 0, window),))
        self.buffers = {ROWS: Buffer(ROWS, 2 * window * width, "rows")}
        self.step: list[Operation] = []
        self.advance: list[Operation] = []

    def buffer(self, size: int, kind: str = "scratch") -> str:
        name = f"{kind}{len(self.buffers)}"
        some = self.rng.normal(0, size**-0.25, size).astype(np.float32)
        start = some if kind in ("constant", "state") else None
        self.buffers[name] = Buffer(name, size, kind, start)
        return name

    def product(self, n: int, k: int, x: View, out: View | None = None) -> Contract:
        """[n, k] · x; add it to a section."""
        matrix = View(self.buffer(n * k, "constant"), 0, (k, 1))
        out = out or View(self.buffer(n), 0, (1,))
        return Contract((n,), (k,), matrix, x, out, View(self.buffer(n, "constant"), 0, (1,)), "W")

    def curve(self, n: int, *inputs: View, out: View | None = None) -> Map:
        """tanh of their sum."""
        lines = [Instruction("load", (i,)) for i in range(len(inputs))]
        for i in range(1, len(inputs)):
            lines.append(Instruction("add", (i if i == 1 else len(lines) - 1, i - (i == 1))))
        lines.append(Instruction("tanh", (len(lines) - 1,)))
        out = out or View(self.buffer(n), 0, (1,))
        return Map((n,), inputs, tuple(lines), (out,), (len(lines) - 1,), "tanh")

    def program(self, outputs: int, warm: int = 0) -> StreamProgram:
        buffers = {**self.buffers, OUTPUT: Buffer(OUTPUT, outputs, "output")}
        sections = {"step": tuple(self.step), "advance": tuple(self.advance)}
        made = StreamProgram(self.window, self.width, outputs, warm, 0, buffers, sections, {})
        return check(made)


def expected(
    program: StreamProgram, rows: np.ndarray, flags: list[int] | None = None
) -> tuple[np.ndarray, list[bool]]:
    """(outputs float32 [n, outputs], whether each row is answered) of rows 1, 2, …

    Args:
        flags: of each row, as of a message (`codes.MAIL_ANSWER`, `MAIL_RESET`).
    """
    reference = Reference(program)
    outputs = np.full((len(rows), program.outputs), np.nan, np.float32)
    answered = []
    for i, row in enumerate(rows):
        if flags is not None and flags[i] & 2:
            reference.reset()
        wanted = flags is None or bool(flags[i] & 1)
        answered.append(wanted and reference.count >= program.warm)
        if answered[-1]:
            outputs[i] = reference.submit(i + 1, row)
        reference.advance(i + 1, row)
    return outputs, answered
