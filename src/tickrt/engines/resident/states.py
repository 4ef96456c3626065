"""What a step may do to a state: `check_states(program)`.

A step runs on copies of the states in shared memory, which are made anew before the next one. So it
may use a part of a state as its own, which it fills before it reads it (a cache whose last place is
the newest row's); what it leaves there is gone with the step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.translate.builder import TranslateError
from tickrt.program import For, Map, Operation, StreamProgram, View
from tickrt.program.ir import operands

__all__ = ["check_states"]

Counts = dict[str, int]
Elements = set[int]


def _flat(operations: tuple[Operation, ...], counts: Counts) -> Iterator[tuple[Operation, Counts]]:
    for op in operations:
        if isinstance(op, For):
            yield from _flat(op.body, {**counts, op.index: op.count})
        else:
            yield op, counts


def _elements(op: Operation, view: View, counts: Counts) -> Elements:
    """What a view reaches, on whatever row."""
    assert not isinstance(op, For)
    sizes = op.loops
    if not isinstance(op, Map) and len(view.strides) > len(op.loops):
        sizes += op.folds
    found: NDArray[np.int64] = np.array([view.offset])
    terms = [stride * np.arange(n) for stride, n in zip(view.strides, sizes, strict=True)]
    for move in view.moves:
        if move.stride:
            steps = move.period if move.index == "seq" else counts[move.index]
            place = np.arange(steps) + move.shift
            terms.append(move.stride * (place % move.period if move.period else place))
    for term in terms:
        found = np.unique(found[:, None] + term)
    return set(found.tolist())


def check_states(program: StreamProgram) -> None:
    """Refuse a program whose step leaves something in a state for later.

    Raises:
        TranslateError: it does; says in which state.
    """
    step = program.sections["step"]
    kept = {buffer.name for buffer in program.buffers.values() if buffer.kind == "state"}
    owned: dict[str, Elements] = {}
    for op, counts in _flat(step, {}):
        for view in operands(op)[1]:
            if view.buffer in kept:
                owned.setdefault(view.buffer, set()).update(_elements(op, view, counts))
    for section, operations in program.sections.items():
        waiting = dict(owned)  # elements of the step's own that it has not written yet
        for outer in operations:  # what a loop reads counts as read before it writes
            inner = list(_flat((outer,), {}))
            for side in (0, 1) if section == "step" else (0,):
                for op, counts in inner:
                    for view in operands(op)[side]:
                        if view.buffer in owned:
                            reached = _elements(op, view, counts)
                            _check(section, view, waiting, reached, side)


def _check(
    section: str, view: View, waiting: dict[str, Elements], reached: Elements, side: int
) -> None:
    turns = any(move.index == "seq" and move.stride for move in view.moves)
    if (section == "step" and turns) or (side == 0 and reached & waiting[view.buffer]):
        raise TranslateError(
            f"a step changes the state {view.buffer!r} for later: only an advance may"
        )
    if side == 1:
        waiting[view.buffer] = waiting[view.buffer] - reached
