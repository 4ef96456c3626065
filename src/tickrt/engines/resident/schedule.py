"""Which part of a program runs where on the GPU: `schedule(program, blocks)` → `Schedule`.

A cluster of blocks, one per multiprocessor, holds the model. On the path there are two ways to run
an operation:

    stage   a product with a constant matrix, with the element-wise operation behind it. Its weights
            stay in registers. Where it is large its units are shared out among the blocks, and what
            it puts out is sent to every block that needs it.
    local   everything else: by all threads of a block, or by one warp where it is tiny.

What a step reads lies in shared memory (`near`): the row, what it computes, and copies of the
states, which `advance` puts there after it has computed them in global memory (`far`). An advance
is shared out among all threads of the cluster.

Limits: a step that reads older rows (a model that is not split) is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.resident.states import check_states
from tickrt.engines.translate.builder import TranslateError
from tickrt.engines.translate.optimise import map_views
from tickrt.program import Buffer, Contract, For, Map, Move, Operation, StreamProgram, View
from tickrt.program.ir import OUTPUT, ROWS, operands, reads, writes

__all__ = [
    "KEPT",
    "SHARED_PRODUCTS",
    "THREADS",
    "WARPS",
    "Local",
    "Piece",
    "Schedule",
    "Stage",
    "schedule",
    "work",
]

Floats = NDArray[np.float32]
WARPS = 16
THREADS = 32 * WARPS
ROW = "row"  # the newest row in shared memory
_STAGE_PRODUCTS = 1024  # a product of fewer multiply-adds is a local operation
SHARED_PRODUCTS = 16384  # one of more is shared out among the blocks
KEPT = 16384  # floats of a constant that is kept in shared memory
_TINY = 32  # elements that one warp has a lane for
_TINY_VECTOR = 128  # elements of a vector that its lanes have in a few registers


@dataclass(frozen=True)
class Piece:
    """One product of a stage: ``N`` outputs of ``K`` inputs; ``N`` is `groups` times the units."""

    contract: Contract
    weights: View  # a stride per output, then per input
    x: View  # likewise
    outputs: int
    folds: int
    groups: int


@dataclass(frozen=True)
class Stage:
    """Products with constant matrices, and the element-wise operation that reads them.

    Attributes:
        units: elements of the last operation, which are shared out.
        shared: True where they are shared out among the blocks.
        everywhere: True where every block needs what it puts out.
    """

    pieces: tuple[Piece, ...]
    last: Map
    units: int
    shared: bool
    everywhere: bool


@dataclass(frozen=True)
class Local:
    """An operation that a block runs by itself; `everywhere`: every block does."""

    operation: Operation
    tiny: bool
    everywhere: bool


@dataclass
class Schedule:
    """What the kernel's text is made from.

    Attributes:
        near: buffers in shared memory: name → (offset, size) in floats.
        far: buffers in global memory, likewise.
        constants: constants that are read where they lie, likewise.
        loads: (near buffer, first element of the state, how many): what an advance ends with, and
            a reset.
        kept: (near buffer, constant, how many): constants of the step, copied once.
        values: of constants that were laid out anew.
    """

    program: StreamProgram
    blocks: int
    registers: int
    one_poller: bool
    step: list[Stage | Local] = field(default_factory=list)
    near: dict[str, tuple[int, int]] = field(default_factory=dict)
    far: dict[str, tuple[int, int]] = field(default_factory=dict)
    constants: dict[str, tuple[int, int]] = field(default_factory=dict)
    near_size: int = 0
    loads: list[tuple[str, View, int]] = field(default_factory=list)
    kept: list[tuple[str, str, int]] = field(default_factory=list)
    values: dict[str, Floats] = field(default_factory=dict)

    @property
    def on_path(self) -> tuple[Operation, ...]:
        """The step as the program has it."""
        return self.program.sections["step"]

    def near_buffer(self, name: str, size: int) -> None:
        """Space for a buffer, with room behind it for a vector load."""
        if name not in self.near:
            self.near[name] = (self.near_size, size)
            self.near_size += (size + 3) // 4 * 4


def _span(view: View, sizes: tuple[int, ...]) -> tuple[int, int]:
    low = high = view.offset
    for stride, n in zip(view.strides, sizes, strict=True):
        low, high = low + min(0, stride * (n - 1)), high + max(0, stride * (n - 1))
    return low, high


def _moves(view: View) -> tuple[tuple[Move, ...], tuple[Move, ...]]:
    """(its moves with the row's number, those with the index of a loop)."""
    turns = tuple(move for move in view.moves if move.index == "seq")
    return turns, tuple(move for move in view.moves if move.index != "seq")


def _sizes(op: Operation, view: View) -> tuple[int, ...]:
    """The loops that this operand walks."""
    assert not isinstance(op, For)
    if isinstance(op, Map) or len(view.strides) == len(op.loops):
        return op.loops
    return op.loops + op.folds


class _Near:
    """Puts what a step reads into shared memory."""

    def __init__(self, out: Schedule) -> None:
        self.out, self.program = out, out.program
        self.spans: dict[tuple[str, tuple[object, ...]], tuple[int, int]] = {}

    def measure(self, operations: tuple[Operation, ...], counts: dict[str, int]) -> None:
        """Which part of every state is used; `counts` are those of the enclosing loops."""
        for op in operations:
            if isinstance(op, For):
                self.measure(op.body, {**counts, op.index: op.count})
                continue
            for view in (*operands(op)[0], *operands(op)[1]):
                kind = self.program.buffers[view.buffer].kind
                if kind not in ("state", "rows"):
                    continue
                low, high = _span(view, _sizes(op, view))
                if kind == "rows":
                    self._check_row(view, low, high)
                    continue
                turns, inner = _moves(view)
                for move in inner:
                    steps = range(move.shift, move.shift + counts[move.index])
                    reached = [move.stride * (i % move.period if move.period else i) for i in steps]
                    low, high = low + min(reached), high + max(reached)
                old = self.spans.get((view.buffer, turns), (low, high))
                self.spans[view.buffer, turns] = (min(low, old[0]), max(high, old[1]))

    def view(self, view: View) -> View:
        """The operand in shared memory."""
        buffer = self.program.buffers[view.buffer]
        if buffer.kind == "constant":
            return view
        if buffer.kind == "rows":
            return View(ROW, view.offset, view.strides)
        if buffer.kind != "state":
            self.out.near_buffer(view.buffer, buffer.size)
            return view
        turns, inner = _moves(view)
        low, high = self.spans[view.buffer, turns]
        moved = ".".join(f"{m.stride}_{m.shift}_{m.period}" for m in turns)
        name = f"{view.buffer}@{moved}" if moved else f"{view.buffer}@"
        if name not in self.out.near:
            self.out.near_buffer(name, high - low + 1)
            self.out.loads.append((name, View(view.buffer, low, (1,), turns), high - low + 1))
        return View(name, view.offset - low, view.strides, inner)

    def _check_row(self, view: View, low: int, high: int) -> None:
        """A step has the newest row alone."""
        width, window = self.program.width, self.program.window
        if view.moves != (Move("seq", width, 0, window),) or low < 0 or high >= width:
            raise TranslateError(
                "a step reads older rows: only split models run on the GPU: leave out --no-split; "
                "`tickrt split` says why a model is not split"
            )


def _piece(program: StreamProgram, op: Operation) -> Piece | None:
    """A product of a vector with a constant matrix; None where it is none."""
    if not isinstance(op, Contract) or len(op.loops) != 1 or len(op.folds) != 1:
        return None
    n, k = op.loops[0], op.folds[0]
    for weights, x in ((op.b, op.a), (op.a, op.b)):
        constant = program.buffers.get(weights.buffer)
        moving = program.buffers.get(x.buffer)
        if (
            constant is not None
            and constant.kind == "constant"
            and (moving is None or moving.kind != "constant")
            and x.strides == (0, 1)
            and n * k >= _STAGE_PRODUCTS
            and op.output.strides == (1,)
        ):
            return Piece(op, weights, x, n, k, 1)
    return None


def _identity(piece: Piece) -> Map:
    from tickrt.program import Instruction

    view = piece.contract.output
    return Map((piece.outputs,), (view,), (Instruction("load", (0,)),), (view,), (0,), "")


def _fits(pieces: list[Piece], last: Operation, rest: list[Operation]) -> bool:
    """True when `last` alone reads the products, unit by unit."""
    if not isinstance(last, Map) or len(last.loops) != 1:
        return False
    units = last.loops[0]
    if len({piece.contract.output.buffer for piece in pieces}) < len(pieces):
        return False  # whose sum is meant, is told by its buffer
    for piece in pieces:
        out = piece.contract.output
        if piece.outputs % units or any(out.buffer in reads(op) for op in rest):
            return False
        for view in last.inputs:
            if view.buffer != out.buffer:
                continue
            if view.strides != (1,) or view.moves or (view.offset - out.offset) % units:
                return False
            if not 0 <= view.offset - out.offset < piece.outputs:
                return False
    return True


def _stage(
    program: StreamProgram, operations: list[Operation], at: int
) -> tuple[Stage, int] | None:
    """A stage that starts at operation `at`, and how many operations it takes."""
    pieces: list[Piece] = []
    while at + len(pieces) < len(operations):
        piece = _piece(program, operations[at + len(pieces)])
        earlier = {p.contract.output.buffer for p in pieces}
        if piece is None or piece.x.buffer in earlier:
            break
        start = piece.contract.start
        if start is not None and start.buffer in earlier:
            break
        pieces.append(piece)
    for count in range(len(pieces), 0, -1):
        group, last = pieces[:count], None
        if at + count < len(operations):
            last = operations[at + count]
        rest = [op for i, op in enumerate(operations) if not at <= i <= at + count]
        if last is not None and _fits(group, last, rest):
            assert isinstance(last, Map)
            units = last.loops[0]
            sized = tuple(replace(p, groups=p.outputs // units) for p in group)
            return Stage(sized, last, units, False, False), count + 1
    if not pieces:
        return None
    return Stage((pieces[0],), _identity(pieces[0]), pieces[0].outputs, False, False), 1


def work(op: Operation) -> int:
    """Elements or products that an operation makes."""
    if isinstance(op, For):
        return op.count * sum(work(inner) for inner in op.body)
    folds = 1 if isinstance(op, Map) else math.prod(op.folds)
    return math.prod(op.loops) * folds


def _is_tiny(op: Operation) -> bool:
    if isinstance(op, For):
        return False
    if isinstance(op, Map) and len(op.loops) == 1:
        return op.loops[0] <= _TINY_VECTOR
    return math.prod(op.loops) <= _TINY and work(op) <= 1024


def _written(item: Stage | Local) -> set[str]:
    return writes(item.last) if isinstance(item, Stage) else writes(item.operation)


def _needed(item: Stage | Local) -> set[str]:
    if isinstance(item, Local):
        return reads(item.operation)
    found = reads(item.last)
    for piece in item.pieces:
        found |= reads(piece.contract)
    return found


def _place(items: list[Stage | Local], blocks: int, shared_from: int) -> list[Stage | Local]:
    """Which blocks need what: from the end backwards."""
    wanted: set[str] = set()  # buffers that every block needs
    placed: list[Stage | Local] = []
    for item in reversed(items):
        everywhere = blocks > 1 and bool(_written(item) & wanted)
        if isinstance(item, Stage):
            products = sum(p.outputs * p.folds for p in item.pieces)
            shared = blocks > 1 and products >= shared_from
            item = replace(item, shared=shared, everywhere=everywhere)
        else:
            item = replace(item, everywhere=everywhere)
        if everywhere or (isinstance(item, Stage) and item.shared):
            wanted |= _needed(item)
        placed.append(item)
    return placed[::-1]


def _items(program: StreamProgram, operations: list[Operation]) -> list[Stage | Local]:
    items: list[Stage | Local] = []
    at = 0
    while at < len(operations):
        found = _stage(program, operations, at)
        if found is None:
            items.append(Local(operations[at], _is_tiny(operations[at]), False))
            at += 1
        else:
            items.append(found[0])
            at += found[1]
    return items


def _arena(names: list[Buffer]) -> dict[str, tuple[int, int]]:
    places, at = {}, 0
    for buffer in names:
        places[buffer.name] = (at, buffer.size)
        at += (buffer.size + 31) // 32 * 32
    return places


def _keep_constants(out: Schedule, most: int) -> None:
    """Constants that a step reads, other than the weights of stages, go into shared memory."""

    def near(view: View) -> View:
        if view.buffer not in out.program.buffers:
            return view
        buffer = out.program.buffers[view.buffer]
        if buffer.kind != "constant" or buffer.size > most:
            return view
        name = f"{view.buffer}@"
        if name not in out.near:
            out.near_buffer(name, buffer.size)
            out.kept.append((name, view.buffer, buffer.size))
        return replace(view, buffer=name)

    kept: list[Stage | Local] = []
    for item in out.step:
        if isinstance(item, Local):
            kept.append(replace(item, operation=map_views(item.operation, near)))
            continue
        pieces = tuple(
            replace(p, contract=replace(p.contract, start=near(p.contract.start)))
            if p.contract.start is not None
            else p
            for p in item.pieces
        )
        last = map_views(item.last, near)
        assert isinstance(last, Map)
        kept.append(replace(item, pieces=pieces, last=last))
    out.step = kept


def _laid_out(out: Schedule, op: Operation) -> Operation:
    """A product with a constant matrix, which lies as its threads read it.

    Many rows: as [K, N], so that neighbours along N are read at once. One row: as [N, K], unless
    the step has that product, too: then its weights are where the step has them.
    """
    if isinstance(op, For):
        return replace(op, body=tuple(_laid_out(out, inner) for inner in op.body))
    if not isinstance(op, Contract) or len(op.folds) != 1 or len(op.loops) not in (1, 2):
        return op
    buffer = out.program.buffers[op.b.buffer]
    n, k = op.loops[-1], op.folds[0]
    many = len(op.loops) == 2
    before, lying = ((0, k, 1), (0, 1, n)) if many else ((1, n), (k, 1))
    if buffer.kind != "constant" or op.b.strides != before or (many and op.a.strides[1]):
        return op
    if any(isinstance(o, Contract) and (o.a, o.b) == (op.a, op.b) for o in out.on_path):
        return op
    name = f"{op.b.buffer}:{op.b.offset}"
    if name not in out.values:
        assert buffer.start is not None  # it is a constant
        matrix = buffer.start[op.b.offset : op.b.offset + n * k]
        matrix = matrix.reshape((n, k) if many else (k, n))
        out.values[name] = np.ascontiguousarray(matrix.T).ravel()
    return replace(op, b=View(name, 0, lying))


def _sections(out: Schedule) -> None:
    """The sections off the path, with their matrices in the order in which they are read."""
    program = out.program
    sections = {
        label: tuple(_laid_out(out, op) for op in section)
        for label, section in program.sections.items()
        if label != "step"
    }
    new = {n: Buffer(n, v.size, "constant", v) for n, v in out.values.items()}
    out.program = replace(
        program,
        buffers={**program.buffers, **new},
        sections={**sections, "step": program.sections["step"]},
    )


def schedule(
    program: StreamProgram,
    blocks: int,
    registers: int,
    one_poller: bool,
    shared_from: int = SHARED_PRODUCTS,
    kept: int = KEPT,
) -> Schedule:
    """Share a program out among `blocks` blocks of a cluster.

    Args:
        registers: weights that a thread keeps in registers.
        one_poller: only the first block looks for rows.
        shared_from: a stage of so many products is shared out among the blocks.
        kept: floats of a constant that is read from shared memory; larger ones come from the L2.

    Raises:
        TranslateError: its step cannot run on the GPU; says why.
    """
    out = Schedule(program, blocks, registers, one_poller)
    out.near_buffer(ROW, program.width)
    step = program.sections["step"]
    check_states(program)
    near = _Near(out)
    near.measure(step, {})
    operations = [map_views(op, near.view) for op in step]
    out.step = _place(_items(program, operations), blocks, shared_from)
    if OUTPUT not in out.near:
        raise TranslateError("the step writes no output")
    _keep_constants(out, kept)
    _sections(out)
    program = out.program
    used = {n for s in program.sections.values() for op in s for n in reads(op) | writes(op)}
    buffers = [b for n, b in program.buffers.items() if n in used or n == ROWS]
    out.far = _arena([b for b in buffers if b.kind not in ("constant", "output")])
    out.constants = _arena([b for b in buffers if b.kind == "constant"])
    return out
