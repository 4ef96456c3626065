"""Where everything lies: one block of memory for weights, constants, states, scratch and outputs.

Entry point: `lay_out(program, packs, raw)` → `Arena`; `Arena.new(program)` fills one.

What `step` reads comes first and in its order, so that its weights are one run of memory.

Invariants: offsets are in float32 from a 64-byte boundary; every place starts at one; a vector that
begins at any element may be read whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tickrt.engines.native.schedule import Pack
from tickrt.program import StreamProgram
from tickrt.program.ir import OUTPUT, ROWS

__all__ = ["Arena", "lay_out", "packed"]

_LINE = 16  # float32 of a cache line
_BEHIND = 64  # float32 that may be read behind the last place


def _round_up(size: int) -> int:
    return -(-size // _LINE) * _LINE


@dataclass(frozen=True)
class Arena:
    """Offsets, in float32.

    Attributes:
        buffers: of buffers that are read or written as they are.
        packs: of packed constants.
        states, starts: of all states, and of their values at the start; `states_size` each.
        size: of all.
    """

    buffers: dict[str, int]
    packs: dict[Pack, int]
    states: int
    starts: int
    states_size: int
    size: int

    def new(self, program: StreamProgram) -> NDArray[np.float32]:
        """A filled arena, float32 [size], on a 64-byte boundary."""
        memory: NDArray[np.float32] = np.zeros(self.size + _LINE, np.float32)
        skip = -memory.ctypes.data % 64 // 4
        memory = memory[skip : skip + self.size]
        for name, offset in self.buffers.items():
            buffer = program.buffers[name]
            if buffer.start is not None:
                moved = self.starts - self.states if buffer.kind == "state" else 0
                memory[offset + moved : offset + moved + buffer.size] = buffer.start
        for pack, offset in self.packs.items():
            values = packed(np.asarray(program.buffers[pack.buffer].start), pack)
            place = memory[offset : offset + pack.size].view(np.uint8)
            place[: len(values)] = np.frombuffer(values, np.uint8)
        return memory


def packed(values: NDArray[np.float32], pack: Pack) -> bytes:
    """The values of a constant as `pack` has them."""
    lanes, lane_stride = pack.lane
    sizes = (*(n for n, _ in pack.outer), lanes, *(n for n, _ in pack.folds))
    strides = (*(s for _, s in pack.outer), lane_stride, *(s for _, s in pack.folds))
    seen = as_strided(values[pack.offset :], sizes, [4 * s for s in strides])
    flat: NDArray[np.float32] = np.zeros(
        (pack.count // (pack.lanes * pack.depth), pack.lanes, pack.depth), np.float32
    )
    flat[:, :lanes] = seen.reshape(len(flat), lanes, pack.depth)
    scales: NDArray[np.float32] = np.ones(pack.lanes, np.float32)
    if pack.weights == "int8":
        largest = np.abs(flat[0]).max(axis=1)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        flat = np.rint(flat / scales[:, np.newaxis])
    parts = [
        flat[:, first : first + pack.width].transpose(0, 2, 1).reshape(len(flat), -1)
        for first in range(0, pack.lanes, pack.width)
    ]
    panels = np.concatenate(parts, axis=1).ravel()
    if pack.weights == "bf16":
        return _bf16(panels).tobytes()
    if pack.weights == "int8":
        whole = np.zeros(-(-panels.size // 4) * 4, np.int8)
        whole[: panels.size] = panels
        return whole.tobytes() + scales.tobytes()
    return panels.tobytes()


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def lay_out(program: StreamProgram, packs: Iterable[Pack], raw: Iterable[str]) -> Arena:
    """Places for packed constants in their order, then for the buffers in `raw`, then the rest."""
    buffers: dict[str, int] = {}
    places: dict[Pack, int] = {}
    end = 0
    for pack in packs:
        if pack not in places:
            places[pack] = end
            end += _round_up(pack.size)
    used = list(dict.fromkeys(raw))
    kinds = {name: program.buffers[name].kind for name in used}
    states = starts = 0
    for wanted in ("constant", "state", "scratch", "output"):
        first = end
        for name in used:
            if kinds[name] == wanted and name != ROWS:
                buffers[name] = end
                end += _round_up(program.buffers[name].size)
        if wanted == "state":
            states, starts, end = first, end, end + (end - first)
    if OUTPUT not in buffers:
        buffers[OUTPUT], end = end, end + _round_up(program.buffers[OUTPUT].size)
    return Arena(buffers, places, states, starts, starts - states, end + _BEHIND)
