"""Which block does which elements of an operation off the path, and what barrier that asks for.

An advance is shared out among all blocks. Where a block reads only what it has written itself, its
own threads need to meet; where it reads what another one has written, the cluster must, which takes
some thousand cycles. So operations on a bank of states are shared out by units: a block has the
same columns of every gate and of every state. `Barriers` finds out, element by element, which
barrier an operation needs.

Entry points: `Barriers`, `flat`, `grouped`, `group_size`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.resident.schedule import THREADS
from tickrt.engines.resident.text import lanes_of, tile
from tickrt.program import Contract, For, Map, Operation, StreamProgram, View
from tickrt.program.ir import ROWS, operands, reads, writes

__all__ = ["Barriers", "Share", "flat", "group_size", "grouped"]

Share = NDArray[np.int64]  # the block of every output, in the order of the loops
_Masks = dict[str, NDArray[np.uint32]]  # buffer → for every element the blocks, a bit each
_MOST = 1 << 22  # elements that a view's turns may reach before it counts as the whole buffer


def flat(op: Map | Operation, blocks: int) -> Share:
    """How `text.operation` shares it out: one element, fold or tile after the other."""
    assert not isinstance(op, For)
    total = math.prod(op.loops)
    element = np.arange(total)
    if isinstance(op, Map):
        return element // THREADS % blocks
    if tile(op):
        n = op.loops[-1]
        numbers = element // n // 4 * (n // 4) + element % n // 4
        return numbers // THREADS % blocks
    return element * lanes_of(total, math.prod(op.folds), THREADS * blocks) // THREADS % blocks


def grouped(loops: Sequence[int], size: int, blocks: int) -> Share:
    """By the last index: of each `size` columns every block has the same number, in order."""
    share = np.broadcast_to(np.arange(loops[-1]) % size // (size // blocks), tuple(loops))
    return np.ascontiguousarray(share).ravel()


def group_size(columns: Sequence[Contract], operations: Sequence[Operation], blocks: int) -> int:
    """Columns of a group: the width of the states. 0 where the operations have none in common."""
    if not columns:
        return 0
    maps = [op.loops[-1] for op in operations if isinstance(op, Map) and len(op.loops) > 1]
    size = min([*maps, *(op.loops[-1] for op in columns)])
    wide = all(op.loops[-1] % size == 0 for op in columns)
    return size if wide and size % blocks == 0 else 0


def _reached(view: View, sizes: Sequence[int], bits: NDArray[np.uint32], length: int) -> _Masks:
    """Which blocks reach which element; `bits` has an axis per size, of length one for folds."""
    mask = np.zeros(length, np.uint32)
    index = np.full((1,) * len(sizes), view.offset)
    for axis, (stride, n) in enumerate(zip(view.strides, sizes, strict=True)):
        if stride:
            shape = [n if k == axis else 1 for k in range(len(sizes))]
            index = index + (stride * np.arange(n)).reshape(shape)
        else:
            bits = np.bitwise_or.reduce(bits, axis=axis, keepdims=True)
    for move in view.moves:
        if move.stride:
            if move.index != "seq" or index.size * move.period > _MOST:
                mask[:] = np.bitwise_or.reduce(bits, axis=None)
                return {view.buffer: mask}
            turns = move.stride * np.arange(move.period)
            index, bits = index[..., None] + turns, bits[..., None]
    index, bits = np.broadcast_arrays(index, bits)
    np.bitwise_or.at(mask, index.ravel(), bits.ravel())
    return {view.buffer: mask}


class Barriers:
    """Notes what a section has touched, and says which barrier comes before an operation.

    When it begins, the first block has written the newest row.
    """

    def __init__(self, program: StreamProgram, blocks: int) -> None:
        self._buffers, self._blocks = program.buffers, blocks
        # Read and written since the block's last barrier, and since the cluster's.
        self._block: tuple[_Masks, _Masks] = {}, {}
        self._cluster: tuple[_Masks, _Masks] = {}, {}
        if ROWS in program.buffers:
            for _, written in (self._block, self._cluster):
                written[ROWS] = np.ones(program.buffers[ROWS].size, np.uint32)

    def before(
        self,
        op: Operation,
        share: Share | None,
        everywhere: Sequence[View] = (),
        elsewhere: Sequence[View] = (),
    ) -> list[str]:
        """The barrier's statement; none where none is needed.

        Args:
            share: the block of every output; None: any block may reach all of its buffers.
            everywhere: operands that every block reads.
            elsewhere: operands that are not read from global memory.
        """
        if share is None:
            touched = self._whole(op)
        else:
            touched = self._elements(op, share, everywhere, elsewhere)
        needed = max(self._conflict(self._block, touched), self._conflict(self._cluster, touched))
        if needed == 2:
            self._cluster = {}, {}
        if needed:
            self._block = {}, {}
        for old in (self._block, self._cluster):
            for side in (0, 1):
                for name, mask in touched[side].items():
                    old[side][name] = old[side].get(name, np.uint32(0)) | mask
        return [[], ["__syncthreads();"], ["cluster_sync();"]][needed]

    def _whole(self, op: Operation) -> tuple[_Masks, _Masks]:
        every = np.uint32((1 << self._blocks) - 1)
        found: tuple[_Masks, _Masks] = {}, {}
        for side, names in enumerate((reads(op), writes(op))):
            for name in names:
                found[side][name] = np.full(self._buffers[name].size, every)
        return found

    def _elements(
        self, op: Operation, share: Share, everywhere: Sequence[View], elsewhere: Sequence[View]
    ) -> tuple[_Masks, _Masks]:
        assert not isinstance(op, For)
        folds = () if isinstance(op, Map) else tuple(op.folds)
        own = (np.uint32(1) << share.astype(np.uint32)).reshape(op.loops)
        every = np.full((1,) * len(op.loops), (1 << self._blocks) - 1, np.uint32)
        found: tuple[_Masks, _Masks] = {}, {}
        for side, views in enumerate(operands(op)):
            for view in views:
                buffer = self._buffers[view.buffer]
                if buffer.kind == "constant" or view in elsewhere:
                    continue
                bits, sizes = (every if view in everywhere else own), tuple(op.loops)
                if len(view.strides) > len(op.loops):
                    bits, sizes = bits.reshape(bits.shape + (1,) * len(folds)), sizes + folds
                for name, mask in _reached(view, sizes, bits, buffer.size).items():
                    found[side][name] = found[side].get(name, np.uint32(0)) | mask
        return found

    def _conflict(self, old: tuple[_Masks, _Masks], new: tuple[_Masks, _Masks]) -> int:
        """0: none, 1: within blocks, 2: between blocks."""
        worst = 0
        for mine, theirs in (
            (1, 0),
            (1, 1),
            (0, 1),
        ):  # write then read, write twice, read then write
            for name in old[mine].keys() & new[theirs].keys():
                a, b = old[mine][name], new[theirs][name]
                both = (a != 0) & (b != 0)
                if (both & ((a != b) | (a & (a - np.uint32(1)) != 0))).any():
                    return 2
                worst = max(worst, int(both.any()))
        return worst
