"""Random operations in one program, and that program compiled and in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tickrt.engines.native.compiler import find_compiler
from tickrt.engines.native.kernel import Kernel
from tickrt.engines.native.source import generate
from tickrt.program import Buffer, Operation, StreamProgram, View
from tickrt.program.check import check
from tickrt.program.reference import Reference

WINDOW, WIDTH = 3, 4
SIZES = (1, 2, 3, 5, 7, 8, 16, 17, 31, 40, 64, 70, 130)


class Bench:
    """A program under construction, whose buffers hold random numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.buffers: dict[str, Buffer] = {
            "rows": Buffer("rows", 2 * WINDOW * WIDTH, "rows"),
            "output": Buffer("output", 3, "output"),
        }
        self.step: list[Operation] = []

    def sizes(self, count: int, most: int) -> tuple[int, ...]:
        """`count` random sizes, `most` elements in all."""
        while True:
            found = tuple(int(n) for n in self.rng.choice(SIZES, count))
            if np.prod(found, dtype=np.int64) <= most:
                return found

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def view(self, sizes: Sequence[int], walked: Sequence[int], kind: str = "state") -> View:
        """An operand that walks the loops in `walked` in any order, with gaps; others repeat it."""
        strides, step = [0] * len(sizes), 1 + int(self.chance(0.2))
        for axis in self.rng.permutation(list(walked)):
            strides[axis] = step
            step *= sizes[axis] + int(self.chance(0.2))
        offset = int(self.rng.integers(0, 4))
        span = sum(s * (n - 1) for s, n in zip(strides, sizes, strict=True))
        return self.over(self.rng.standard_normal(offset + span + 2), strides, offset, kind)

    def over(
        self, values: np.ndarray, strides: Sequence[int], offset: int = 0, kind: str = "state"
    ) -> View:
        """A view of a new buffer with those values."""
        name = f"b{len(self.buffers)}"
        start = np.asarray(values, np.float32)
        self.buffers[name] = Buffer(name, len(start), kind, start)
        return View(name, offset, tuple(strides))

    def out(self, sizes: Sequence[int]) -> View:
        """Where an operation writes: every loop has a place of its own."""
        return self.view(sizes, range(len(sizes)))

    def program(self) -> StreamProgram:
        sections = {"step": tuple(self.step), "advance": ()}
        return check(StreamProgram(WINDOW, WIDTH, 3, 2, 2, self.buffers, sections, {"model": "m"}))


def compiled(program: StreamProgram, folder: Path, wide: bool = True) -> Kernel:
    """The program as code, in tiles for many registers or for few."""
    compiler = find_compiler()
    assert compiler is not None
    native = generate(program, wide=wide)
    source, target = folder / "program.c", folder / f"program{len(list(folder.iterdir()))}.so"
    source.write_text(native.source)
    compiler.build(source, target)
    return Kernel(native, target)


def both(
    program: StreamProgram, folder: Path, wide: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every state after one step: as compiled, in NumPy."""
    ring = np.zeros((2 * WINDOW, WIDTH), np.float32)
    engine = compiled(program, folder, wide).engine(ring.ctypes.data)
    reference = Reference(program)
    for seq in range(1, WINDOW):
        reference.advance(seq, ring[0])
    engine.submit(WINDOW)
    reference.submit(WINDOW, ring[0])
    names = [name for name in engine.states() if name in program.buffers]
    return (
        {name: engine.states()[name].copy() for name in names},
        {name: reference.memory[name] for name in names},
    )
