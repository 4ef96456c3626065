"""Products of which most terms are known: what a step need not read of its weights.

Entry point: `find_sparse(program)` → the program with what it prepares, and the products by place.

    row     of a product with the newest row, the product with the row before is made off the path;
            on it, only columns count in which the two rows differ
    zeros   of a product with what a Relu gives, only what is not zero counts

Both are exact to rounding: a term that is left out is 0 times a finite weight, and a row that is
not of the size of the one before takes the long way (`changed` in prelude.c).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tickrt.program import Buffer, Contract, Map, Move, Operation, StreamProgram, View
from tickrt.program.ir import ROWS

__all__ = ["Sparse", "find_sparse"]

_WORTH = 1 << 13  # weights below which it does not pay


@dataclass(frozen=True)
class Sparse:
    """How a product is cut short; `base` is the buffer with the product of the row before."""

    kind: str  # row, zeros
    base: str = ""


def _vector_of_weights(program: StreamProgram, op: Operation) -> tuple[View, View] | None:
    """(numbers, weights) of one output row: a matrix of finite constants times a vector."""
    if not isinstance(op, Contract) or len(op.loops) != 1 or len(op.folds) != 1:
        return None
    for x, weights in ((op.a, op.b), (op.b, op.a)):
        buffer = program.buffers[weights.buffer]
        if (
            buffer.kind == "constant"
            and x.strides == (0, 1)
            and 0 not in weights.strides
            and op.loops[0] * op.folds[0] >= _WORTH
            and bool(np.isfinite(np.asarray(buffer.start)).all())
        ):
            return x, weights
    return None


def _after_relu(section: tuple[Operation, ...]) -> set[str]:
    """Buffers that one map writes, as the larger of something and 0."""
    found, seen = set(), set()
    for op in section:
        if isinstance(op, Map):
            for view, result in zip(op.outputs, op.results, strict=True):
                line = op.body[result]
                zeros = [
                    a
                    for a in line.arguments
                    if line.function == "max"
                    and op.body[int(a)].function == "value"
                    and op.body[int(a)].arguments == (0.0,)
                ]
                if zeros and view.buffer not in seen:
                    found.add(view.buffer)
                else:
                    found.discard(view.buffer)
                seen.add(view.buffer)
        elif not isinstance(op, Map) and hasattr(op, "output"):
            found.discard(op.output.buffer)
            seen.add(op.output.buffer)
    return found


def find_sparse(program: StreamProgram) -> tuple[StreamProgram, dict[int, Sparse]]:
    """The program, which now also makes the products of the row before; by number in `step`, the
    products that can be cut short."""
    step, advance = program.sections["step"], program.sections["advance"]
    newest = (Move("seq", program.width, 0, program.window),)
    relu = _after_relu(step)
    found: dict[int, Sparse] = {}
    buffers = dict(program.buffers)
    made: list[Operation] = []
    for number, op in enumerate(step):
        operands = _vector_of_weights(program, op)
        if operands is None:
            continue
        assert isinstance(op, Contract)
        x, _ = operands
        whole_row = (x.buffer, x.offset, x.moves) == (ROWS, 0, newest)
        if whole_row and op.folds == (program.width,) and advance:
            base = f"row_before.{len(made)}"
            buffers[base] = Buffer(base, op.loops[0], "state")
            out = View(base, 0, (1,))
            label = f"{op.label}: for the row after this one"
            made.append(replace(op, output=out, start=None, label=label))
            found[number] = Sparse("row", base)
        elif x.buffer in relu and not x.moves:
            found[number] = Sparse("zeros")
    sections = {
        name: section if name == "step" else (*section, *made)
        for name, section in program.sections.items()
    }
    return replace(program, buffers=buffers, sections=sections), found
