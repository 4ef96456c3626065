"""Stages: products with constant matrices whose weights stay in registers.

Entry points: `weights` (loads them), `blob` (their values in that order), `stage` (one stage of the
step), `product` (one product of it once more, for an advance that needs it too).

A block has 16 warps. 32 outputs are a group; a warp takes one group and one segment of the inputs,
so a thread has one output and a few dozen weights. The segments' sums meet in shared memory, where
the threads of the element-wise operation add them up. What does not fit into registers lies in
shared memory, in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.resident.schedule import THREADS, WARPS, Piece, Schedule, Stage
from tickrt.engines.resident.shares import Share
from tickrt.engines.resident.text import comment, expression
from tickrt.engines.resident.writer import Text
from tickrt.program import StreamProgram, View

__all__ = [
    "blob",
    "partials",
    "pool_size",
    "product",
    "product_share",
    "stage",
    "weights",
    "weights_per_thread",
]

Floats = NDArray[np.float32]
_SENDERS = 4  # warps that compute the same units: one on each scheduler of a multiprocessor


@dataclass(frozen=True)
class _Layout:
    """How a block's threads share a piece: `groups` of 32 outputs, `segments` of its inputs."""

    outputs: int  # of this block
    groups: int
    segments: int
    per_warp: int  # groups that a warp does
    width: int  # inputs per segment, a multiple of four


def _layout(piece: Piece, units: int) -> _Layout:
    outputs = piece.groups * units
    groups = math.ceil(outputs / 32)
    per_warp = math.ceil(groups / WARPS)
    segments = max(1, WARPS // groups)
    width = math.ceil(math.ceil(piece.folds / segments) / 4) * 4
    segments = math.ceil(piece.folds / width)
    return _Layout(outputs, groups, segments, per_warp, width)


def _units(stage: Stage, blocks: int) -> int:
    """Units of the stage that one block computes."""
    return math.ceil(stage.units / blocks) if stage.shared else stage.units


def _in_registers(stages: list[Stage], blocks: int, registers: int) -> dict[tuple[int, int], bool]:
    """Which pieces' weights are in registers: the first ones, until those are full."""
    used, found = 0, {}
    for s, stage in enumerate(stages):
        for p, piece in enumerate(stage.pieces):
            lay = _layout(piece, _units(stage, blocks))
            count = lay.per_warp * lay.width
            found[s, p] = used + count <= registers
            used += count if found[s, p] else 0
    return found


def weights_per_thread(stage: Stage, blocks: int) -> int:
    """Products that each thread makes in a stage."""
    layouts = [_layout(piece, _units(stage, blocks)) for piece in stage.pieces]
    return sum(lay.per_warp * lay.width for lay in layouts)


def pool_size(plan: Schedule) -> int:
    """Floats of shared memory for weights that are not in registers."""
    stages = [item for item in plan.step if isinstance(item, Stage)]
    size = 0
    for (s, p), inside in _in_registers(stages, plan.blocks, plan.registers).items():
        lay = _layout(stages[s].pieces[p], _units(stages[s], plan.blocks))
        size += 0 if inside else WARPS * lay.per_warp * lay.width * 32
    return size


def weights(text: Text) -> None:
    """Load the weights of every stage, once."""
    blocks = text.plan.blocks
    text.add(f"const float *next = a.weights + (rank * {WARPS} + warp) * WARP_WEIGHTS + lane;")
    at = 0
    inside = _in_registers(text.stages, blocks, text.plan.registers)
    for s, stage in enumerate(text.stages):
        for p, piece in enumerate(stage.pieces):
            lay = _layout(piece, _units(stage, blocks))
            count = lay.per_warp * lay.width
            value = f"__ldg(next + ({at} + k) * 32)"
            if inside[s, p]:
                text.add(comment(piece.contract.label), f"float w{s}_{p}[{count}];")
                text.add("#pragma unroll")
                text.add(f"for (int k = 0; k < {count}; k++) w{s}_{p}[k] = {value};")
            else:
                place = text.take(WARPS * count * 32)
                text.pool_places[s, p] = place
                here = f"pool[{place} + (warp * {count} + k) * 32 + lane]"
                text.add(f"for (int k = 0; k < {count}; k++) {here} = {value};")
            at += count


def blob(plan: Schedule) -> tuple[Floats, int]:
    """The weights in the order in which threads load them; how many per warp."""
    stages = [item for item in plan.step if isinstance(item, Stage)]
    parts: list[Floats] = []
    for stage in stages:
        units = _units(stage, plan.blocks)
        for piece in stage.pieces:
            lay = _layout(piece, units)
            matrix = _matrix(plan.program, piece)
            part = np.zeros((plan.blocks, WARPS, lay.per_warp, lay.width, 32), np.float32)
            for rank in range(plan.blocks):
                first = rank * units if stage.shared else 0
                _fill(part[rank], matrix, piece, lay, (first, units, stage.units))
            parts.append(part.reshape(plan.blocks, WARPS, -1))
    if not parts:
        return np.zeros(1, np.float32), 0
    blob = np.concatenate(parts, axis=2)
    return np.ascontiguousarray(blob).ravel(), int(blob.shape[2]) // 32


def _matrix(program: StreamProgram, piece: Piece) -> Floats:
    """[N, K]"""
    values = program.buffers[piece.weights.buffer].start
    assert values is not None  # it is a constant
    n, k = np.ogrid[: piece.outputs, : piece.folds]
    out, inner = piece.weights.strides
    found: Floats = values[piece.weights.offset + n * out + k * inner]
    return found


def _fill(
    part: Floats, matrix: Floats, piece: Piece, lay: _Layout, share: tuple[int, int, int]
) -> None:
    """One block's weights: part [WARPS, per_warp, width, 32]."""
    first, units, total = share
    for warp in range(WARPS):
        group0, segment = warp % lay.groups, warp // lay.groups
        if lay.groups > WARPS:
            group0, segment = warp, 0
        if segment >= lay.segments:
            continue
        low = segment * lay.width
        high = min(low + lay.width, piece.folds)
        for j in range(lay.per_warp):
            for lane in range(32):
                local = (group0 + j * WARPS) * 32 + lane
                g, u = divmod(local, units)
                if local < lay.outputs and first + u < total:
                    row = matrix[g * total + first + u, low:high]
                    part[warp, j, : high - low, lane] = row


def _weight(text: Text, s: int, p: int, lay: _Layout, index: str) -> str:
    place = text.pool_places.get((s, p))
    if place is None:
        return f"w{s}_{p}[{index}]"
    return f"pool[{place} + (warp * {lay.per_warp * lay.width} + {index}) * 32 + lane]"


def _products(text: Text, s: int, stage: Stage, p: int, offset: int) -> None:
    """One piece: every thread its sums, into the partial sums at `offset`."""
    piece = stage.pieces[p]
    lay = _layout(piece, _units(stage, text.plan.blocks))
    first = text.near.index(View(piece.x.buffer, piece.x.offset, ()), [])
    many = lay.groups > WARPS
    text.open("")
    text.add(comment(f"{piece.contract.label}: {piece.outputs} sums of {piece.folds}"))
    text.add(f"const int group = {'warp' if many else f'warp % {lay.groups}'};")
    text.add(f"const int segment = {'0' if many else f'warp / {lay.groups}'};")
    text.open(f"if (segment < {lay.segments})")
    text.add(f"const float *x = near + {first} + segment * {lay.width};")
    for j in range(lay.per_warp):
        text.add("float " + ", ".join(f"s{j}_{i} = 0.0f" for i in range(4)) + ";")
    text.add("#pragma unroll")
    text.open(f"for (int k = 0; k < {lay.width}; k += 4)")
    if int(first.split(" + ")[0]) % 4 == 0:
        text.add("float4 v = *reinterpret_cast<const float4 *>(x + k);")
    else:
        text.add("float4 v = make_float4(x[k], x[k + 1], x[k + 2], x[k + 3]);")
    rest = piece.folds - (lay.segments - 1) * lay.width
    if rest < lay.width:  # what lies behind may be anything, NaN too
        last = f"segment == {lay.segments - 1}"
        for i, part in enumerate("xyzw"):
            text.add(f"if (k + {i} >= {rest} && {last}) v.{part} = 0.0f;")
    for j in range(lay.per_warp):
        for i, part in enumerate("xyzw"):
            weight = _weight(text, s, p, lay, f"{j * lay.width} + k + {i}")
            text.add(f"s{j}_{i} = fmaf({weight}, v.{part}, s{j}_{i});")
    text.close()
    for j in range(lay.per_warp):
        text.open("")
        text.add(f"const int o = (group + {j * WARPS}) * 32 + lane;")
        total = f"(s{j}_0 + s{j}_1) + (s{j}_2 + s{j}_3)"
        place = f"partial[{offset} + segment * {lay.outputs} + o]"
        text.add(f"if (o < {lay.outputs}) {place} = {total};")
        text.close()
    text.close()
    text.close()


def _joined(terms: list[str]) -> str:
    """Their sum as a tree: a chain would wait for each."""
    while len(terms) > 1:
        pairs = [" + ".join(terms[i : i + 2]) for i in range(0, len(terms), 2)]
        terms = [f"({pair})" if " + " in pair else pair for pair in pairs]
    return terms[0]


def _sum(text: Text, stage: Stage, index: int, offsets: list[int]) -> str:
    """The value of input `index` of a stage's last operation, for unit `u` of the block."""
    view = stage.last.inputs[index]
    units = _units(stage, text.plan.blocks)
    for piece, offset in zip(stage.pieces, offsets, strict=True):
        out = piece.contract.output
        if view.buffer != out.buffer:
            continue
        lay = _layout(piece, units)
        g = (view.offset - out.offset) // stage.units
        terms = [
            f"partial[{offset + k * lay.outputs + g * units} + u]" for k in range(lay.segments)
        ]
        start = piece.contract.start
        if start is not None:
            terms.append(text.near.load(start, [f"({g * stage.units} + unit)"]))
        return _joined(terms)
    return text.near.load(view, ["unit"])


def partials(text: Text) -> int:
    """Partial sums of the largest stage, a multiple of four."""
    sizes = [0]
    for stage in text.stages:
        layouts = [_layout(piece, _units(stage, text.plan.blocks)) for piece in stage.pieces]
        sizes.append(sum(lay.segments * lay.outputs for lay in layouts))
    return (max(sizes) + 3) // 4 * 4


def stage(text: Text, s: int, stage: Stage) -> None:
    """Write stage number `s` of the step."""
    plan = text.plan
    units = _units(stage, plan.blocks)
    guard = "" if stage.shared or stage.everywhere or plan.blocks == 1 else "if (rank == 0)"
    text.add(comment(f"stage {s}: {stage.last.label}"))
    text.open(guard)
    if len(text.stages) > 4:
        text.add("ANEW;")
    # In turns in two places: a warp that still adds up need not be waited for by the next stage.
    offsets, at = [], s % 2 * partials(text)
    for p, piece in enumerate(stage.pieces):
        offsets.append(at)
        _products(text, s, stage, p, at)
        lay = _layout(piece, units)
        at += lay.segments * lay.outputs
    text.partials = max(text.partials, at)
    text.add("__syncthreads();")
    if stage.shared:
        _send(text, s, stage, offsets)
    else:
        text.open(f"for (int unit = tid; unit < {units}; unit += {THREADS})")
        text.add("const int u = unit;")
        statements, values = expression(stage.last.body, lambda i: _sum(text, stage, i, offsets))
        text.add(*statements)
        for view, r in zip(stage.last.outputs, stage.last.results, strict=True):
            text.add(text.near.store(view, ["unit"], values[r]))
        text.close()
    if not stage.shared:
        text.add("__syncthreads();")
    elif stage.everywhere:
        text.add(f"arrival_wait(arrival + {8 * s}, parity);")
    else:
        text.add(f"if (rank == 0) arrival_wait(arrival + {8 * s}, parity);")
    text.close()


def _gathered(text: Text, stage: Stage, offsets: list[int]) -> dict[tuple[int, int], str]:
    """Sums of every product and group of units, in the lane of their unit: (piece, group) → name.

    Each lane of one warp adds up a few outputs, whichever they are; then units fetch theirs.
    """
    units = _units(stage, text.plan.blocks)
    names: dict[tuple[int, int], str] = {}
    for p, (piece, offset) in enumerate(zip(stage.pieces, offsets, strict=True)):
        lay = _layout(piece, units)
        start = piece.contract.start
        for r in range(math.ceil(lay.outputs / 32)):
            text.add(f"float q{p}_{r};")
            text.open("")
            text.add(f"const int o = min({32 * r} + lane, {lay.outputs - 1});")
            terms = [f"partial[{offset + k * lay.outputs} + o]" for k in range(lay.segments)]
            if start is not None:
                unit = f"min((int)rank * {units} + o % {units}, {stage.units - 1})"
                terms.append(text.near.load(start, [f"(o / {units} * {stage.units} + {unit})"]))
            text.add(f"q{p}_{r} = {_joined(terms)};")
            text.close()
        for g in range(piece.groups):
            low, high = g * units // 32, (g * units + units - 1) // 32
            found = [f"__shfl_sync(0xffffffffu, q{p}_{r}, {g * units} + u)" for r in (low, high)]
            chosen = found[0] if low == high else f"{g * units} + u < {32 * high} ? s0 : s1"
            names[p, g] = f"sum{p}_{g}"
            text.add(f"float sum{p}_{g};")
            text.open("")
            if low != high:
                text.add(*(f"const float s{i} = {value};" for i, value in enumerate(found)))
            text.add(f"sum{p}_{g} = {chosen};")
            text.close()
    return names


def _value(text: Text, stage: Stage, index: int, sums: dict[tuple[int, int], str]) -> str:
    """Input `index` of a stage's last operation, for the unit of this lane."""
    view = stage.last.inputs[index]
    for p, piece in enumerate(stage.pieces):
        out = piece.contract.output
        if view.buffer == out.buffer:
            return sums[p, (view.offset - out.offset) // stage.units]
    return text.near.load(view, ["unit"])


def _send(text: Text, s: int, stage: Stage, offsets: list[int]) -> None:
    """A warp computes 32 units of the block and sends them to some blocks, each lane its own.

    Several warps compute the same units and share out the blocks, one on each scheduler: the sends
    of one alone would take longer than what they wait for.
    """
    units, blocks = _units(stage, text.plan.blocks), text.plan.blocks
    targets = blocks if stage.everywhere else 1
    chunks = math.ceil(units / 32)
    senders = max(1, min(_SENDERS // chunks, targets))
    text.open(f"if (warp < {chunks * senders})")
    text.add(f"const int own = warp / {senders} * 32 + lane, u = min(own, {units - 1});")
    text.add(f"const int unit = min((int)rank * {units} + u, {stage.units - 1});")
    if units <= 32:
        sums = _gathered(text, stage, offsets)
        statements, values = expression(stage.last.body, lambda i: _value(text, stage, i, sums))
    else:
        statements, values = expression(stage.last.body, lambda i: _sum(text, stage, i, offsets))
    text.add(*statements)
    text.open(f"if (own < {units} && (int)rank * {units} + own < {stage.units})")
    for number, (r, view) in enumerate(zip(stage.last.results, stage.last.outputs, strict=True)):
        text.add(
            f"const word there{number} = shared_address(&near[{text.near.index(view, ['unit'])}]);"
        )
        text.add(f"const float value{number} = {values[r]};")
    text.add("#pragma unroll")
    text.open(f"for (word i = 0; i < {math.ceil(targets / senders)}; i++)")
    text.add(f"const word b = warp % {senders} + {senders} * i;")
    guard = "" if targets % senders == 0 else f"if (b < {targets}) "
    for number in range(len(stage.last.results)):
        barrier = f"in_block(arrival + {8 * s}, b)"
        text.add(f"{guard}send(in_block(there{number}, b), value{number}, {barrier});")
    text.close()
    text.close()
    text.close()


def _same(piece: Piece, weights: View, x: View) -> bool:
    """True for the product of those weights with the newest row."""
    views = (piece.weights.buffer, piece.weights.offset, piece.weights.strides)
    return views == (weights.buffer, weights.offset, weights.strides) and piece.x.offset == x.offset


def _again(text: Text, weights: View, x: View) -> tuple[int, int] | None:
    """The stage and the piece that are this product with the newest row."""
    for s, stage in enumerate(text.stages):
        for p, piece in enumerate(stage.pieces):
            if piece.x.buffer == "row" and _same(piece, weights, x):
                return s, p
    return None


def product_share(text: Text, weights: View, x: View) -> Share | None:
    """The block of every output of `product`; None where no stage has it."""
    found = _again(text, weights, x)
    if found is None:
        return None
    stage, piece = text.stages[found[0]], text.stages[found[0]].pieces[found[1]]
    units = _units(stage, text.plan.blocks) if stage.shared else stage.units
    return np.arange(piece.outputs) % stage.units // units


def product(text: Text, weights: View, x: View, out: View) -> None:
    """A stage's product with the newest row once more, into global memory."""
    found, blocks = _again(text, weights, x), text.plan.blocks
    assert found is not None
    (s, p), stage = found, text.stages[found[0]]
    units = _units(stage, blocks)
    lay = _layout(stage.pieces[p], units)
    text.open("" if stage.shared or blocks == 1 else "if (rank == 0)")
    _products(text, s, stage, p, 0)
    text.partials = max(text.partials, lay.segments * lay.outputs)
    text.add("__syncthreads();")
    first = f"rank * {units} + " if stage.shared else ""
    text.open(f"for (int o = tid; o < {lay.outputs}; o += {THREADS})")
    text.add(f"const int unit = {first}o % {units};")
    terms = [f"partial[{k * lay.outputs} + o]" for k in range(lay.segments)]
    index = f"(o / {units} * {stage.units} + unit)"
    text.add(f"if (unit < {stage.units}) {text.far.store(out, [index], _joined(terms))}")
    text.close()
    text.add("__syncthreads();")  # the next one has the same place for its partial sums
    text.close()
