"""Products of many rows with a constant matrix, for an advance, on the matrix units: `Columns`.

The columns are shared out among the blocks, group by group (`shares.grouped`). A block keeps its
columns of the matrix in shared memory, as long as there is room, in the order in which lanes read
them; the rows go there first, all of them. Each warp then makes tiles of 16 rows and some times 8
columns. A matrix unit takes factors of 11 binary digits. So every row and the matrix are brought
below 2 by a power of two, and every number is split in two: three products of these parts are as
exact as float32, whatever the numbers' size.
"""

from __future__ import annotations

import math

import numpy as np

from tickrt.engines.resident.schedule import THREADS, WARPS
from tickrt.engines.resident.shares import Share, group_size, grouped
from tickrt.engines.resident.text import column, comment, number
from tickrt.engines.resident.writer import Text
from tickrt.program import Contract, Operation, View
from tickrt.program.ir import writes

__all__ = ["Columns"]

_FOLDS = 16  # inputs that a matrix unit takes at once
_ROWS_AT_ONCE = 4  # that a warp loads before it waits
_MULTIPLY = 8  # cycles of a scheduler, where a block's shared memory gives 128 bytes each


def _padded(folds: int) -> int:
    """Inputs in whole steps of the matrix unit."""
    return math.ceil(folds / _FOLDS) * _FOLDS


def _stride(folds: int) -> int:
    """Words from a row to the next: eight times an odd number, so that rows lie in other banks."""
    return _padded(folds) + 8


def _row_words(m: int, folds: int) -> int:
    """Shared memory of all rows, and of each one's scale."""
    return m * _stride(folds) + (m + 3) // 4 * 4


def _across(m: int, tiles: int) -> int:
    """Tiles that a warp makes side by side: what they share is loaded once."""

    def cost(across: int) -> int:
        jobs = math.ceil(m / 16) * math.ceil(tiles / across)
        busy = math.ceil(jobs / 4) if jobs <= WARPS else math.ceil(jobs / WARPS) * 4
        return max(jobs * (8 + 4 * across), busy * 3 * across * _MULTIPLY)

    return min(range(1, min(2, tiles) + 1), key=cost)


def _fits(op: Operation, blocks: int) -> bool:
    """[M, K] rows, dense along K, times a constant [K, N], N a multiple of eight per block."""
    if not isinstance(op, Contract) or len(op.loops) != 2 or len(op.folds) != 1:
        return False
    (m, n), k = op.loops, op.folds[0]
    rows = (op.a.strides[1], op.a.strides[2]) == (0, 1) and op.a.strides[0] % 4 == 0
    matrix = op.b.strides == (0, 1, n)
    aligned = not op.a.moves and op.a.offset % 4 == 0
    return m >= 8 and n % (8 * blocks) == 0 and k % 4 == 0 and rows and matrix and aligned


class Columns:
    """Writes them; `room` is the shared memory that is left for matrices and rows, in floats."""

    def __init__(self, text: Text, room: int) -> None:
        self.text, self.room = text, room
        self._kept: dict[tuple[str, int], int] = {}
        self._starts: dict[tuple[str, int, int], int] = {}
        self._sizes: dict[str, int] = {}
        self._rows: tuple[View, int] | None = None  # what lies in shared memory at this place

    def keep(self, section: str, operations: tuple[Operation, ...]) -> None:
        """Give the matrices of a section shared memory, and load them."""
        text, blocks = self.text, self.text.plan.blocks
        fitting = [op for op in operations if isinstance(op, Contract) and _fits(op, blocks)]
        self._sizes[section] = size = group_size(fitting, operations, blocks)
        rows = max([0, *(_row_words(op.loops[0], op.folds[0]) for op in fitting)])
        for op in fitting:
            mine, key = op.loops[1] // blocks, (op.b.buffer, op.b.offset)
            words = _padded(op.folds[0]) * mine
            if key in self._kept or self.room - rows < words:
                continue
            self.room -= words
            self._kept[key] = place = text.take(words)
            text.open(f"for (int i = tid; i < {words // 4}; i += {THREADS})")
            tiles = mine // 8
            text.add("const int lane = i % 32;")
            text.add(f"const int k = i / 32 / {tiles} * 16, tile = i / 32 % {tiles};")
            self._factors(op, size or op.loops[1], "tile")
            text.add(f"*reinterpret_cast<uint4 *>(&pool[{place} + i * 4]) = b;")
            text.close()
        for op in fitting:
            self._keep_start(op, size or op.loops[1], rows)

    def _keep_start(self, op: Contract, size: int, rows: int) -> None:
        """The same constants for every row: the block's, in shared memory."""
        start, text, blocks = op.start, self.text, self.text.plan.blocks
        mine = op.loops[1] // blocks
        if start is None or text.program.buffers[start.buffer].kind != "constant":
            return
        key = (start.buffer, start.offset, mine)
        if start.strides != (0, 1) or key in self._starts or self.room - rows < mine:
            return
        self.room -= mine
        self._starts[key] = place = text.take(mine)
        text.open(f"for (int c = tid; c < {mine}; c += {THREADS})")
        value = text.far.load(start, ["0", f"({column('c', size, blocks)})"])
        text.add(f"pool[{place} + c] = {value};")
        text.close()

    def _factors(self, op: Contract, size: int, tile: str) -> None:
        """`b`: a lane's part of 16 inputs from k on and the 8 columns of a tile."""
        (_, n), folds, blocks = op.loops, op.folds[0], self.text.plan.blocks
        base = self.text.plan.constants[op.b.buffer][0] + op.b.offset
        scale, _ = self._scale(op)
        self.text.add(f"const int c = ({tile}) * 8 + lane / 4;")
        self.text.add(f"const int first = k + lane % 4 * 2, j = {column('c', size, blocks)};")
        self.text.add("float w[4];", "#pragma unroll")
        self.text.open("for (int q = 0; q < 4; q++)")
        self.text.add("const int at = first + q / 2 * 8 + q % 2;")
        value = f"__ldg(constants + {base} + at * {n} + j) * {number(scale)}"
        guard = f"at < {folds} ? {value} : 0.0f" if folds % _FOLDS else value
        self.text.add(f"w[q] = {guard};")
        self.text.close()
        self.text.add("const uint2 near0 = halves_of(w[0], w[1]), near8 = halves_of(w[2], w[3]);")
        self.text.add("const uint4 b = make_uint4(near0.x, near8.x, near0.y, near8.y);")

    def _scale(self, op: Contract) -> tuple[float, float]:
        """A power of two that brings the matrix below 2, and its inverse."""
        values = self.text.program.buffers[op.b.buffer].start
        assert values is not None  # it is a constant
        found = np.abs(values[op.b.offset : op.b.offset + op.loops[1] * op.folds[0]])
        most = float(found[np.isfinite(found)].max(initial=0.0))
        power = max(-126, min(126, math.frexp(most)[1] - 1)) if most else 0
        return math.ldexp(1.0, -power), math.ldexp(1.0, power)

    def size(self, section: str) -> int:
        """Columns of a group there; 0: there are none."""
        return self._sizes.get(section, 0)

    def share(self, section: str, op: Operation) -> Share | None:
        """The block of every output; None where the operation is none of these."""
        blocks = self.text.plan.blocks
        if not isinstance(op, Contract) or not _fits(op, blocks):
            return None
        (m, n), k = op.loops, op.folds[0]
        if _row_words(m, k) > self.room:
            return None
        return grouped(op.loops, self.size(section) or n, blocks)

    def begin(self) -> None:
        """A section begins: no rows are there."""
        self._rows = None

    def written(self, op: Operation) -> None:
        """What an operation has written is no longer what lies in shared memory."""
        if self._rows is not None and self._rows[0].buffer in writes(op):
            self._rows = None

    def write(self, section: str, op: Operation) -> None:
        """One operation that has a share, by all blocks."""
        assert isinstance(op, Contract)
        (m, n), k = op.loops, op.folds[0]
        text, size = self.text, self.size(section) or n
        tiles = n // text.plan.blocks // 8
        across = _across(m, tiles)
        groups = math.ceil(tiles / across)
        text.rows = max(text.rows, _row_words(m, k))
        text.open("")
        text.add(comment(op.label))
        if self._rows != (op.a, m):
            self._stage(op)
            self._rows = op.a, m
            text.mark("  rows")
        text.open(f"for (int e = warp; e < {math.ceil(m / 16) * groups}; e += {WARPS})")
        text.add(f"const int m0 = e / {groups} * 16, t0 = e % {groups} * {across};")
        self._tile(op, across, tiles, size)
        text.close()
        text.mark("  stored")
        text.add("__syncthreads();")
        text.close()

    def _stage(self, op: Contract) -> None:
        """Rows into shared memory, a row a warp, and what each was scaled with."""
        text, m, k = self.text, op.loops[0], op.folds[0]
        source = text.far.index(View(op.a.buffer, op.a.offset, ()), [])
        pieces = math.ceil(_padded(k) / 128)
        text.open(f"for (int first = warp; first < {m}; first += {WARPS * _ROWS_AT_ONCE})")
        text.add(f"float4 v[{_ROWS_AT_ONCE}][{pieces}];")
        text.add("#pragma unroll", f"for (int i = 0; i < {_ROWS_AT_ONCE}; i++)", "#pragma unroll")
        text.open(f"for (int p = 0; p < {pieces}; p++)")
        text.add(f"const int r = first + i * {WARPS}, c = p * 128 + lane * 4;")
        there = f"far[{source} + r * {op.a.strides[0]} + c]"
        value = f"*reinterpret_cast<const float4 *>(&{there})"
        zero = "make_float4(0.0f, 0.0f, 0.0f, 0.0f)"
        text.add(f"v[i][p] = r < {m} && c < {k} ? {value} : {zero};")
        text.close()
        text.add("#pragma unroll")
        text.open(f"for (int i = 0; i < {_ROWS_AT_ONCE}; i++)")
        text.add(f"const int r = first + i * {WARPS};")
        text.add("word most = largest_exponent(v[i][0]);")
        for p in range(1, pieces):
            text.add(f"most = max(most, largest_exponent(v[i][{p}]));")
        text.add("const float2 scale = scales_of(most);")
        text.open(f"if (r < {m})")
        text.add(f"if (lane == 0) rows[{m * _stride(k)} + r] = scale.y;")
        text.add("#pragma unroll")
        text.open(f"for (int p = 0; p < {pieces}; p++)")
        text.add("const int c = p * 128 + lane * 4;")
        text.add("const uint2 x = halves_of(v[i][p].x * scale.x, v[i][p].y * scale.x);")
        text.add("const uint2 y = halves_of(v[i][p].z * scale.x, v[i][p].w * scale.x);")
        place = f"*reinterpret_cast<uint4 *>(&rows[r * {_stride(k)} + c])"
        text.add(f"if (c < {_padded(k)}) {place} = make_uint4(x.x, x.y, y.x, y.y);")
        text.close()
        text.close()
        text.close()
        text.close()
        text.add("__syncthreads();")

    def _tile(self, op: Contract, across: int, tiles: int, size: int) -> None:
        """16 rows from m0 on and the 8 columns of each of the block's tiles from t0 on."""
        text, blocks = self.text, self.text.plan.blocks
        m, k = op.loops[0], op.folds[0]
        text.add(f"float total[{across}][4] = {{}}, rest[{across}][4] = {{}};")
        for half in range(2):
            row = f"min(m0 + {8 * half} + lane / 4, {m - 1})"
            text.add(f"const int r{half} = {row};")
            text.add(f"const float *row{half} = &rows[r{half} * {_stride(k)} + lane % 4 * 2];")
        guard = "" if tiles % across == 0 else f"if (t0 + t < {tiles})"
        start, column_ = op.start, column("c", size, blocks)
        near = start and self._starts.get((start.buffer, start.offset, op.loops[1] // blocks))
        if start is not None and near is None:  # from far: asked for before the products
            text.add(f"float start[{across}][4];", "#pragma unroll")
            text.open(f"for (int i = 0; i < {4 * across}; i++)")
            text.add(f"const int c = min(t0 + i / 4, {tiles - 1}) * 8 + lane % 4 * 2 + i % 2;")
            text.add(f"[[maybe_unused]] const int j = {column_}, r = i % 4 / 2 ? r1 : r0;")
            text.add(f"start[i / 4][i % 4] = {text.far.load(start, ['r', 'j'])};")
            text.close()
        text.add("#pragma unroll 1")
        text.open(f"for (int k = 0; k < {_padded(k)}; k += {_FOLDS})")
        text.add("word high[4], low[4];", "#pragma unroll")
        text.open("for (int i = 0; i < 4; i++)")
        there = "&(i % 2 ? row1 : row0)[k + i / 2 * 8]"
        text.add(f"const uint2 x = *reinterpret_cast<const uint2 *>({there});")
        text.add("high[i] = x.x, low[i] = x.y;")
        text.close()
        text.add("#pragma unroll")
        text.open(f"for (int t = 0; t < {across}; t++)")
        text.open(guard)
        place = self._kept.get((op.b.buffer, op.b.offset))
        if place is not None:
            index = f"((k / 16 * {tiles} + t0 + t) * 32 + lane) * 4"
            value = f"*reinterpret_cast<const uint4 *>(&pool[{place} + {index}])"
            text.add(f"const uint4 b = {value};")
        else:
            self._factors(op, size, "t0 + t")
        text.add("multiply(rest[t], low, b.x, b.y);")
        text.add("multiply(total[t], high, b.x, b.y);")
        text.add("multiply(rest[t], high, b.z, b.w);")
        text.close()
        text.close()
        text.close()
        text.mark("  products")
        scale = f"{number(self._scale(op)[1])}"
        for half in range(2):
            text.add(f"const float scale{half} = rows[{m * _stride(k)} + r{half}] * {scale};")
        text.add("#pragma unroll")
        text.open(f"for (int i = 0; i < {4 * across}; i++)")
        text.add("const int r = m0 + lane / 4 + i % 4 / 2 * 8, t = t0 + i / 4;")
        text.add(f"const int c = t * 8 + lane % 4 * 2 + i % 2, j = {column_};")
        value = "(total[i / 4][i % 4] + rest[i / 4][i % 4] * REST) * (i % 4 / 2 ? scale1 : scale0)"
        if start is not None:
            value += " + start[i / 4][i % 4]" if near is None else f" + pool[{near} + c]"
        inside = f"r < {m}" if tiles % across == 0 else f"r < {m} && t < {tiles}"
        text.add(f"if ({inside}) {text.far.store(op.output, ['r', 'j'], value)}")
        text.close()
