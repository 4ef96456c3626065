"""Products of many rows with a constant matrix, for an advance: `Columns`.

The columns are shared out among the blocks. A block keeps its columns of the matrix in shared
memory, as long as there is room; the rows go there first, all of them. Each thread then makes
4 × 4 outputs.
"""

from __future__ import annotations

import math

from tickrt.engines.resident.schedule import THREADS
from tickrt.engines.resident.text import comment
from tickrt.engines.resident.writer import Text
from tickrt.program import Contract, Operation, View

__all__ = ["Columns"]

_PAD = 4  # floats behind each row, so that neighbours lie in other banks


def _fits(op: Operation, blocks: int) -> bool:
    """[M, K] rows, dense along K, times a constant [K, N], N a multiple of four per block."""
    if not isinstance(op, Contract) or len(op.loops) != 2 or len(op.folds) != 1:
        return False
    (m, n), k = op.loops, op.folds[0]
    rows = (op.a.strides[1], op.a.strides[2]) == (0, 1) and op.a.strides[0] % 4 == 0
    matrix = op.b.strides == (0, 1, n)
    aligned = not op.a.moves and op.a.offset % 4 == 0 and op.b.offset % 4 == 0
    return m >= 8 and n % (4 * blocks) == 0 and k % 4 == 0 and rows and matrix and aligned


class Columns:
    """Writes them; `room` is the shared memory that is left for matrices and rows, in floats."""

    def __init__(self, text: Text, room: int) -> None:
        self.text, self.room = text, room
        self._kept: dict[tuple[str, int], int] = {}

    def keep(self, operations: tuple[Operation, ...]) -> None:
        """Give the matrices of these operations shared memory, and load them."""
        text, blocks = self.text, self.text.plan.blocks
        fitting = [op for op in operations if isinstance(op, Contract) and _fits(op, blocks)]
        rows = max([0, *(op.loops[0] * (op.folds[0] + _PAD) for op in fitting)])
        for op in fitting:
            (_, n), k = op.loops, op.folds[0]
            mine, key = n // blocks, (op.b.buffer, op.b.offset)
            if key in self._kept or self.room - rows < k * mine:
                continue
            self.room -= k * mine
            self._kept[key] = place = text.take(k * mine)
            base = text.plan.constants[op.b.buffer][0] + op.b.offset
            text.open(f"for (int i = tid; i < {k * mine}; i += {THREADS})")
            source = f"{base} + i / {mine} * {n} + rank * {mine} + i % {mine}"
            text.add(f"pool[{place} + i] = __ldg(constants + {source});")
            text.close()

    def write(self, op: Operation) -> bool:
        """One operation by all blocks; False where it is none of these."""
        if not isinstance(op, Contract) or not _fits(op, self.text.plan.blocks):
            return False
        (m, n), k = op.loops, op.folds[0]
        wide = k + _PAD
        if m * wide > self.room:
            return False
        text = self.text
        text.rows = max(text.rows, m * wide)
        mine = n // text.plan.blocks
        text.open("")
        text.add(comment(op.label))
        source = text.far.index(View(op.a.buffer, op.a.offset, ()), [])
        text.open(f"for (int i = tid; i < {m * k // 4}; i += {THREADS})")
        text.add(f"const int r = i / {k // 4}, c = i % {k // 4} * 4;")
        there = f"far[{source} + r * {op.a.strides[0]} + c]"
        text.add(
            f"*reinterpret_cast<float4 *>(&rows[r * {wide} + c]) = "
            f"*reinterpret_cast<const float4 *>(&{there});"
        )
        text.close()
        text.add("__syncthreads();")
        text.open(f"for (int e = tid; e < {math.ceil(m / 4) * mine // 4}; e += {THREADS})")
        self._tile(op, mine)
        text.close()
        text.add("__syncthreads();")
        text.close()
        return True

    def _tile(self, op: Contract, mine: int) -> None:
        text = self.text
        (m, n), k = op.loops, op.folds[0]
        text.add(f"const int m0 = e / {mine // 4} * 4, n0 = e % {mine // 4} * 4;")
        text.add(f"const int column = rank * {mine} + n0;")
        text.add("float total[4][4];", "#pragma unroll")
        start = "0.0f"
        if op.start is not None:
            start = text.far.load(op.start, [f"min(m0 + i, {m - 1})", "(column + j)"])
        text.add("for (int i = 0; i < 4; i++)", "#pragma unroll")
        text.add(f"  for (int j = 0; j < 4; j++) total[i][j] = {start};")
        wide = k + _PAD
        for i in range(4):
            text.add(f"const float *a{i} = &rows[min(m0 + {i}, {m - 1}) * {wide}];")
        place = self._kept.get((op.b.buffer, op.b.offset))
        text.add("#pragma unroll 1")
        text.open(f"for (int k = 0; k < {k}; k += 4)")
        for i in range(4):
            text.add(f"const float4 x{i} = *reinterpret_cast<const float4 *>(a{i} + k);")
        for s, part in enumerate("xyzw"):
            if place is not None:
                at = f"pool[{place} + (k + {s}) * {mine} + n0]"
                value = f"*reinterpret_cast<const float4 *>(&{at})"
            else:
                base = text.plan.constants[op.b.buffer][0] + op.b.offset
                at = f"constants + {base} + (k + {s}) * {n} + column"
                value = f"__ldg(reinterpret_cast<const float4 *>({at}))"
            text.add(f"const float4 b{s} = {value};")
            for i in range(4):
                for j, c in enumerate("xyzw"):
                    text.add(f"total[{i}][{j}] = fmaf(x{i}.{part}, b{s}.{c}, total[{i}][{j}]);")
        text.close()
        store = text.far.store(op.output, ["(m0 + i)", "(column + j)"], "total[i][j]")
        text.add("#pragma unroll", "for (int i = 0; i < 4; i++)", "#pragma unroll")
        text.add(f"  for (int j = 0; j < 4; j++) if (m0 + i < {m}) {store}")
