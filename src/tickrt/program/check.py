"""Is a program sound? Every generated kernel relies on it, and none checks anything itself.

Entry point: `check(program)`. What it holds is said in `ir`; it is stricter than it must be where
the exact answer would be costly (two views of one buffer whose ranges cross are refused, even if no
element is in both).
"""

from __future__ import annotations

from tickrt.errors import EngineError
from tickrt.program.ir import (
    FUNCTIONS,
    KINDS,
    OUTPUT,
    REDUCTIONS,
    ROWS,
    SECTIONS,
    Buffer,
    Contract,
    For,
    Map,
    Operation,
    Reduce,
    StreamProgram,
    View,
    operands,
)

__all__ = ["check"]

_MAX_FLOATS = 2**31 - 1  # of all buffers together: offsets fit into 32 bits


def check(program: StreamProgram) -> StreamProgram:
    """`program`, where it is sound.

    Raises:
        EngineError: it is not; says which section, operation and view, and why.
    """
    if min(program.window, program.width, program.outputs) < 1:
        raise EngineError(
            f"program: window {program.window}, width {program.width}, outputs {program.outputs}: "
            "each must be 1 or more"
        )
    if not 0 <= program.idle <= program.warm:
        raise EngineError(
            f"program: idle {program.idle} and warm {program.warm}: expected 0 ≤ idle ≤ warm"
        )
    _check_buffers(program)
    for wanted in ("step", "advance"):
        if wanted not in program.sections:
            raise EngineError(f"program: there is no section {wanted!r}")
    for section, operations in program.sections.items():
        if section not in SECTIONS:
            raise EngineError(f"program: section {section!r}: expected {', '.join(SECTIONS)}")
        checker = _Checker(program)
        checker.operations(f"program: {section}", operations, {})
    return program


def _check_buffers(program: StreamProgram) -> None:
    for name, buffer in program.buffers.items():
        if buffer.kind not in KINDS or buffer.name != name or buffer.size < 1:
            raise EngineError(
                f"program: buffer {name!r}: name {buffer.name!r}, kind {buffer.kind!r}, size "
                f"{buffer.size}"
            )
        if buffer.start is None and buffer.kind == "constant":
            raise EngineError(f"program: buffer {name!r}: a constant without values")
        if buffer.start is not None and buffer.kind not in ("constant", "state"):
            raise EngineError(f"program: buffer {name!r}: a {buffer.kind} buffer has no start")
        if buffer.start is not None and buffer.start.shape != (buffer.size,):
            raise EngineError(f"program: buffer {name!r}: its start does not fill it")
    total = sum(buffer.size for buffer in program.buffers.values())
    if total > _MAX_FLOATS:
        raise EngineError(f"program: its buffers hold {total} floats, at most {_MAX_FLOATS}")
    sizes = {ROWS: 2 * program.window * program.width, OUTPUT: program.outputs}
    for kind, size in sizes.items():  # a kind and the only buffer of it have one name
        found = [b.name for b in program.buffers.values() if b.kind == kind]
        if found != [kind] or program.buffers[kind].size != size:
            raise EngineError(
                f"program: expected one buffer of kind {kind!r}, of that name and size {size}; "
                f"got {found}"
            )


class _Checker:
    """Walks one section in the order in which it runs."""

    def __init__(self, program: StreamProgram) -> None:
        self.buffers: dict[str, Buffer] = program.buffers
        self.written: set[str] = set()

    def operations(
        self, where: str, operations: tuple[Operation, ...], counts: dict[str, int]
    ) -> None:
        """Args: counts: of the enclosing loops, by index."""
        for number, operation in enumerate(operations):
            place = f"{where}[{number}] ({operation.label or type(operation).__name__})"
            if isinstance(operation, For):
                index = operation.index
                known = index == "seq" or index in counts or not index.isidentifier()
                if operation.count < 1 or known:
                    raise EngineError(
                        f"{place}: index {index!r}, count {operation.count}: expected a new name "
                        "and 1 or more"
                    )
                inner = {**counts, index: operation.count}
                self.operations(place, operation.body, inner)
                continue
            self._operation(place, operation, counts)

    def _operation(
        self, place: str, operation: Map | Contract | Reduce, counts: dict[str, int]
    ) -> None:
        loops = operation.loops
        folds = () if isinstance(operation, Map) else operation.folds
        if any(n < 1 for n in (*loops, *folds)):
            raise EngineError(f"{place}: loops {loops} and folds {folds} must be 1 or more")
        if isinstance(operation, Map):
            _check_body(place, operation)
        if isinstance(operation, Reduce) and operation.kind not in REDUCTIONS:
            raise EngineError(f"{place}: reduction {operation.kind!r}")
        sources, targets = operands(operation)
        start = operation.start if isinstance(operation, Contract) else None
        reached = []
        for view in sources:
            sizes = loops if view is start else loops + folds
            self._check_view(place, view, sizes, counts)
            if self.buffers[view.buffer].kind == "scratch" and view.buffer not in self.written:
                raise EngineError(f"{place}: reads scratch {view.buffer!r}, which nothing wrote")
            reached.append((view, sizes, isinstance(operation, Map) or view is start))
        for target in targets:
            self._check_view(place, target, loops, counts)
            if self.buffers[target.buffer].kind in ("constant", "rows"):
                raise EngineError(f"{place}: writes to {target.buffer!r}")
            if not _one_to_one(target, loops):
                raise EngineError(f"{place}: {target} writes an element twice")
            for view, sizes, may_be_same in reached:
                if not (may_be_same and view == target) and _meet(
                    (view, sizes), (target, loops), counts
                ):
                    raise EngineError(f"{place}: {target} writes over what it reads by {view}")
            reached.append((target, loops, False))
        self.written.update(view.buffer for view in targets)

    def _check_view(
        self, place: str, view: View, sizes: tuple[int, ...], counts: dict[str, int]
    ) -> None:
        buffer = self.buffers.get(view.buffer)
        if buffer is None:
            raise EngineError(f"{place}: there is no buffer {view.buffer!r}")
        if len(view.strides) != len(sizes):
            raise EngineError(f"{place}: {len(view.strides)} strides for loops {sizes}: {view}")
        for move in view.moves:
            if move.index != "seq" and move.index not in counts:
                raise EngineError(f"{place}: {view} moves with {move.index!r}, which is no index")
            if move.period == 0 and move.index == "seq":
                raise EngineError(f"{place}: {view} moves with seq without end")
            if move.period < 0 or (move.period > 0 and move.shift < 0):
                raise EngineError(f"{place}: {view}: period and shift must be 0 or more")
        low, high = _range(view, sizes, counts, moves=True)
        if low < 0 or high >= buffer.size:
            raise EngineError(
                f"{place}: {view} reaches {low} … {high} of {buffer.name!r}, which has "
                f"{buffer.size}"
            )


def _range(
    view: View, sizes: tuple[int, ...], counts: dict[str, int], moves: bool
) -> tuple[int, int]:
    """First and last element that a view can reach."""
    low = high = view.offset
    for move in view.moves if moves else ():
        first, last = move.shift, move.shift + counts.get(move.index, 1) - 1
        if move.period:
            first, last = 0, move.period - 1
        low += min(first * move.stride, last * move.stride)
        high += max(first * move.stride, last * move.stride)
    spans = [stride * (size - 1) for stride, size in zip(view.strides, sizes)]
    return low + sum(min(0, s) for s in spans), high + sum(max(0, s) for s in spans)


def _meet(
    one: tuple[View, tuple[int, ...]], other: tuple[View, tuple[int, ...]], counts: dict[str, int]
) -> bool:
    """True when both may reach an element in one turn of the enclosing loops."""
    if one[0].buffer != other[0].buffer:
        return False
    moves = one[0].moves != other[0].moves  # equal moves move both
    low, high = _range(*one, counts, moves)
    first, last = _range(*other, counts, moves)
    return low <= last and first <= high


def _one_to_one(view: View, sizes: tuple[int, ...]) -> bool:
    """True when every turn of the loops has an element of its own."""
    reach = 0
    for stride, size in sorted((abs(s), n) for s, n in zip(view.strides, sizes) if n > 1):
        if stride <= reach:
            return False
        reach += stride * (size - 1)
    return True


def _check_body(place: str, operation: Map) -> None:
    for line, instruction in enumerate(operation.body):
        expected = FUNCTIONS.get(instruction.function)
        if expected is None or len(instruction.arguments) != expected:
            raise EngineError(f"{place}: line {line}: {instruction}")
        if instruction.function == "value":
            if not isinstance(instruction.arguments[0], (int, float)):
                raise EngineError(f"{place}: line {line}: {instruction} is no number")
            continue
        limit = len(operation.inputs) if instruction.function == "load" else line
        if not all(isinstance(a, int) and 0 <= a < limit for a in instruction.arguments):
            raise EngineError(f"{place}: line {line}: {instruction} reads what is not there")
    if len(operation.results) != len(operation.outputs) or not all(
        0 <= r < len(operation.body) for r in operation.results
    ):
        raise EngineError(f"{place}: results {operation.results}")
