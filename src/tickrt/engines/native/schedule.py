"""How a `Contract` is computed: which loop runs over the lanes of a vector, which over a tile.

Entry point: `schedule(contract, program)` → `Lanes`, `Dot` or `Plain`, by an estimate of cycles.

    Lanes   a block of neighbouring outputs in vectors; per fold one number of the other operand
    Dot     the fold itself in vectors: few outputs over a long fold
    Plain   loops as they are: what fits neither

Constant operands are packed at load (`Pack`), so that the innermost loop reads them in order.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from tickrt.engines.native.sparse import Sparse
from tickrt.program import Contract, StreamProgram, View
from tickrt.program.ir import ROWS

__all__ = ["LANES", "Dot", "Lanes", "Pack", "Plain", "blocks", "schedule"]

LANES = 16
# Vectors of 16 that the sums of a tile may take: AVX-512 has registers for 32, AVX2 and NEON for 8.
_WIDE, _NARROW = 24, 6
_CHAINS = 8  # independent sums that hide the latency of a multiply-add
_SCATTER = 1.5  # cycles to store one output that has no neighbour
_PLAIN = 2.0  # cycles of a multiply-add that stands alone
_LARGE = 4096  # weights from which on their type matters
_SUM_UP = 10.0  # cycles to add the lanes of a vector

Dimension = tuple[int, int]  # size, stride


@dataclass(frozen=True)
class Pack:
    """How a constant operand lies in memory: [outer…][block of lanes][folds…][lane].

    Attributes:
        outer, folds: dimensions of the original buffer, slowest first.
        lane: the dimension in blocks; size 1 where there is none.
        width: lanes of a block; the last one is narrower, a multiple of 16.
        weights: ``fp32``, ``bf16`` or ``int8``.
    """

    buffer: str
    offset: int
    outer: tuple[Dimension, ...]
    lane: Dimension
    folds: tuple[Dimension, ...]
    width: int
    weights: str = "fp32"

    @property
    def depth(self) -> int:
        """Elements of a fold."""
        return math.prod(n for n, _ in self.folds)

    @property
    def lanes(self) -> int:
        """The lanes with those that fill the last vector."""
        return self.lane[0] if self.width == 1 else -(-self.lane[0] // LANES) * LANES

    @property
    def count(self) -> int:
        """Elements in all."""
        return math.prod(n for n, _ in self.outer) * self.lanes * self.depth

    @property
    def size(self) -> int:
        """Memory that it takes, in float32; int8 has a scale for every lane behind it."""
        if self.weights == "bf16":
            return -(-self.count // 2)
        if self.weights == "int8":
            return -(-self.count // 4) + self.lanes
        return self.count


@dataclass(frozen=True)
class Lanes:
    """`vector` is read in vectors along loop `lane`, `scalar` one number at a time.

    Attributes:
        tile: the loop whose turns share a vector; None: there is none.
        outer: all other loops.
        folds: order of the folds.
        vectors: of a block of lanes.
        rows: turns of `tile` at once.
        chains: sums of one output, where there is no tile: they hide latency.
        sparse: how most of it can be left out.
    """

    vector: View
    scalar: View
    lane: int
    tile: int | None
    outer: tuple[int, ...]
    folds: tuple[int, ...]
    vectors: int
    rows: int
    chains: int
    pack: Pack | None
    sparse: Sparse | None = None


@dataclass(frozen=True)
class Dot:
    """Both operands have unit stride along the last fold; packs of `a` and `b`, or None."""

    packs: tuple[Pack | None, Pack | None]


@dataclass(frozen=True)
class Plain:
    """Loops as they are."""


def blocks(count: int, most: int) -> int:
    """How many of `count` at once: a divisor where a good one is near `most`, else `most`."""
    if count <= most:
        return count
    for size in range(most, most // 2, -1):
        if count % size == 0:
            return size
    return most


def _chains(depth: int, vectors: int) -> int:
    """Sums per output: a divisor of the innermost fold, unless that is long."""
    wanted = max(1, min(_CHAINS // vectors, depth // 4))
    if depth >= 32:
        return wanted
    return next(c for c in range(wanted, 0, -1) if depth % c == 0)


def _lanes(
    op: Contract, program: StreamProgram, vector: View, lane: int, registers: int
) -> Lanes | None:
    """The schedule with `vector` read along loop `lane`; None where that cannot be."""
    scalar = op.b if vector is op.a else op.a
    count, buffer = op.loops[lane], program.buffers[vector.buffer]
    constant = buffer.kind == "constant"
    if not op.folds or scalar.strides[lane] != 0 or vector.strides[lane] == 0:
        return None
    if not constant and (vector.strides[lane] != 1 or (buffer.name == ROWS and count % LANES)):
        return None
    others = [i for i in range(len(op.loops)) if i != lane]
    shared = [i for i in others if vector.strides[i] == 0 and scalar.strides[i] != 0]
    tile = max(shared, key=lambda i: op.loops[i], default=None)
    outer = tuple(i for i in others if i != tile)
    folds = tuple(range(len(op.folds)))
    total = -(-count // LANES)
    if tile is None:
        vectors = blocks(total, min(8, registers))
        rows = 1
        folds = tuple(sorted(folds, key=lambda f: op.folds[f]))
        chains = _chains(op.folds[folds[-1]], vectors) if folds else 1
    else:
        vectors = blocks(total, 4 if registers == _WIDE else 2)
        rows = blocks(op.loops[tile], min(8, registers // vectors))
        chains = 1
    pack = None
    if constant:
        n = len(op.loops)
        pack = Pack(
            vector.buffer,
            vector.offset,
            tuple((op.loops[i], vector.strides[i]) for i in outer if vector.strides[i]),
            (count, vector.strides[lane]),
            tuple((op.folds[f], vector.strides[n + f]) for f in folds),
            vectors * LANES,
        )
    return Lanes(vector, scalar, lane, tile, outer, folds, vectors, rows, chains, pack)


def _lanes_cost(op: Contract, plan: Lanes) -> float:
    outputs = math.prod(op.loops)
    total = -(-op.loops[plan.lane] // LANES)
    turns = outputs // op.loops[plan.lane] * math.prod(op.folds)
    sums = plan.vectors * plan.rows * plan.chains
    slow = max(1.0, 4.0 / sums, (plan.vectors + plan.rows) / (plan.vectors * plan.rows))
    strided = op.output.strides[plan.lane] != 1
    return turns * total * slow + outputs * _SCATTER * strided


def _dense(op: Contract, view: View) -> Pack:
    """A constant operand with its folds in a row."""
    n = len(op.loops)
    outer = tuple((op.loops[i], view.strides[i]) for i in range(n) if view.strides[i])
    folds = tuple((size, view.strides[n + f]) for f, size in enumerate(op.folds))
    return Pack(view.buffer, view.offset, outer, (1, 0), folds, 1)


def _dot(op: Contract, program: StreamProgram) -> Dot | None:
    if not op.folds:
        return None
    packs: list[Pack | None] = []
    for view in (op.a, op.b):
        if view.strides[-1] == 1:
            packs.append(None)
        elif program.buffers[view.buffer].kind == "constant":
            packs.append(_dense(op, view))
        else:
            return None
    return Dot((packs[0], packs[1]))


def _in_type(plan: Lanes, weights: str) -> Lanes:
    """With its constants in another type, where that is worth it: a large matrix, one vector."""
    pack = plan.pack
    if pack is None or plan.tile is not None or plan.outer or pack.count < _LARGE:
        return plan
    return replace(plan, pack=replace(pack, weights=weights))


def schedule(
    op: Contract,
    program: StreamProgram,
    sparse: Sparse | None = None,
    weights: str = "fp32",
    wide: bool = True,
) -> Lanes | Dot | Plain:
    """The schedule of least cost.

    Args:
        sparse: how most of it can be left out, where it can.
        weights: type of large constant matrices: ``fp32``, ``bf16``, ``int8``.
        wide: there are the registers of AVX-512.
    """
    outputs, depth = math.prod(op.loops), math.prod(op.folds)
    found: list[tuple[float, Lanes | Dot | Plain]] = [(outputs * depth * _PLAIN, Plain())]
    for vector, lane in itertools.product((op.a, op.b), range(len(op.loops))):
        plan = _lanes(op, program, vector, lane, _WIDE if wide else _NARROW)
        if plan is not None:
            found.append((_lanes_cost(op, plan), plan))
    dot = _dot(op, program)
    if dot is not None:
        last = op.folds[-1]
        per_run = last // LANES + last % LANES * 3.0
        found.append((outputs * (depth // last * per_run + _SUM_UP), dot))
    best = min(found, key=lambda entry: entry[0])[1]
    if isinstance(best, Lanes) and best.pack:
        return _in_type(replace(best, sparse=sparse), weights)
    return best
