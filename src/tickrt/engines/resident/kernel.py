"""The CUDA C++ of a resident kernel: `generate(program, blocks)` → `Kernel`.

The kernel is launched once and stays. Each row: wait for it, run the step, send the answer, run the
advance, put what the next step reads into shared memory. What every kernel has in common is in
`resident.cuh`; here is what depends on the model, in the order of the text.

    weights    of every stage, into registers; they stay there
    wait       every block polls the slot and copies the row
    step       stages and local operations (`schedule`)
    answer     the first block's first warp
    advance    all threads of the cluster, a barrier where one operation needs another's values
    loads      states for the next step, into shared memory
    rehearsal  the step once more, without an answer: its instructions are at hand when a row comes
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import PIECE_OUTPUTS
from tickrt.engines.resident.advance import SLOT, advance, turns
from tickrt.engines.resident.columns import Columns
from tickrt.engines.resident.lanes import ELEMENTS, Lanes
from tickrt.engines.resident.schedule import (
    KEPT,
    ROW,
    SHARED_PRODUCTS,
    THREADS,
    Local,
    Stage,
    schedule,
)
from tickrt.engines.resident.stages import (
    blob,
    partials,
    pool_size,
    stage,
    weights,
)
from tickrt.engines.resident.text import (
    Team,
    by_parts,
    comment,
    operation,
    strided,
)
from tickrt.engines.resident.writer import Text
from tickrt.engines.translate.builder import TranslateError
from tickrt.program import For, Operation, StreamProgram
from tickrt.program.ir import OUTPUT, operands, reads, writes

__all__ = ["Kernel", "generate"]

SHARED_BYTES = 227 * 1024  # a block's, on a Hopper GPU
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and what it is launched with.

    Attributes:
        source: CUDA C++.
        blocks, shared_bytes: of the launch; a block has `schedule.THREADS` threads.
        starts: what the program's global memory holds after a reset.
        constants, weights: as its arguments.
        marks: what ends at each place where a build with ``-DPROFILE`` notes the cycles.
    """

    source: str
    blocks: int
    shared_bytes: int
    starts: Floats
    constants: Floats
    weights: Floats
    marks: tuple[str, ...]


def _locals(text: Text, items: list[Local], later: set[str], last: bool) -> None:
    """Local operations that follow one another on the same blocks, all tiny or none.

    Args:
        later: buffers that are read afterwards.
        last: nothing but the answer follows.
    """
    first = items[0]
    conditions = [] if first.everywhere or text.plan.blocks == 1 else ["rank == 0"]
    conditions += ["warp == 0"] if first.tiny else []
    text.open("")
    text.add("ANEW;")
    text.open(f"if ({' && '.join(conditions)})" if conditions else "")
    operations = [item.operation for item in items]
    at_once = last and _writes_outputs(operations, text.program.outputs)
    lanes = Lanes(text, operations, later if at_once else later | {OUTPUT})
    if first.tiny and lanes.possible():
        lanes.write()
        if last:
            _answer(text, lanes.values[OUTPUT].names if at_once else [])
    else:
        team = Team("lane", 32, 32) if first.tiny else Team("tid", THREADS, 32)
        for item in items:
            if not first.tiny and strided(item.operation):
                place = text.take(THREADS)
                text.flat(by_parts(item.operation, text.near, THREADS, f"(pool + {place})"))
            else:
                text.flat(operation(item.operation, text.near, team, "__syncthreads();"))
            text.add("__syncwarp();" if first.tiny else "__syncthreads();")
        if last:
            _answer(text, [])
    text.close()
    text.close()
    text.mark(items[-1].operation.label)


def _writes_outputs(run: list[Operation], outputs: int) -> bool:
    """True when one operation makes them all, so that they need not go through memory."""
    views = [v for op in run for v in operands(op)[1] if v.buffer == OUTPUT]
    sizes = [op.loops for op in run if not isinstance(op, For) and OUTPUT in writes(op)]
    return len(views) == 1 and math.prod(sizes[0]) == outputs <= ELEMENTS


def _needed(item: Stage | Local) -> set[str]:
    if isinstance(item, Local):
        return reads(item.operation)
    return reads(item.last).union(*(reads(piece.contract) for piece in item.pieces))


def _run(items: list[Stage | Local]) -> list[Local]:
    """The local operations at the beginning of `items` that go together."""
    run: list[Local] = []
    for item in items:
        if not isinstance(item, Local):
            break
        if run and (item.tiny, item.everywhere) != (run[0].tiny, run[0].everywhere):
            break
        run.append(item)
    return run


def _operations(item: Stage | Local) -> tuple[Operation, ...]:
    if isinstance(item, Local):
        return (item.operation,)
    return (*(piece.contract for piece in item.pieces), item.last)


def _step(text: Text) -> None:
    items, at, s = text.plan.step, 0, 0
    turns(text, tuple(op for item in items for op in _operations(item)), [])
    while at < len(items):
        item = items[at]
        if isinstance(item, Stage):
            stage(text, s, item)
            text.mark(item.last.label or item.pieces[0].contract.label)
            at, s = at + 1, s + 1
            continue
        run = _run(items[at:])
        at += len(run)
        later: set[str] = set().union(*(_needed(i) for i in items[at:]))
        _locals(text, run, later, at == len(items))
        if item.tiny and at < len(items):
            text.add("__syncthreads();")
    if isinstance(items[-1], Stage):
        _answer(text, [])


def _answer(text: Text, registers: list[str]) -> None:
    """Send the outputs: from registers of the first warp, else from shared memory."""
    outputs = text.program.outputs
    base = text.plan.near[OUTPUT][0] if not registers else 0
    values = registers or [f"near[{base + i}]" for i in range(outputs)]
    text.open("if (!rehearsal && rank == 0 && warp == 0)")
    pieces = math.ceil(outputs / PIECE_OUTPUTS)
    ready = f"count >= {text.program.warm}"  # else its states are not complete
    text.add(f"const word tag = {ready} ? number : number | REFUSED;")
    for p in range(pieces):
        words = [
            f"__float_as_uint({v})" for v in values[PIECE_OUTPUTS * p : PIECE_OUTPUTS * (p + 1)]
        ]
        words += ["0u"] * (PIECE_OUTPUTS - len(words)) + ["tag"]
        place = f"a.answers + (number & a.mask) * a.answer_pieces + {p}"
        text.add(f"if (lane == {p % 32}) store_system({place}, make_uint4({', '.join(words)}));")
    text.close()
    text.mark("answer")


def _loads(text: Text, ahead: int = 1) -> None:
    """States of the step `ahead` rows from this one, into every block's shared memory."""
    text.open("")
    loads = []
    for name, view, size in text.plan.loads:
        moves = tuple(replace(m, shift=m.shift + ahead) for m in view.moves)
        loads.append((name, replace(view, moves=moves), size))
    turns(text, (), [view for _, view, _ in loads])
    for name, view, size in loads:
        base = text.plan.near[name][0]
        value = text.far.load(view, ["i"])
        text.add(f"for (int i = tid; i < {size}; i += {THREADS}) near[{base} + i] = {value};")
    text.close()
    text.add("__syncthreads();")


def _expect(text: Text) -> None:
    """Arm the arrivals of the next step."""
    for s, item in enumerate(text.stages):
        if item.shared:
            size = 4 * item.units * len(item.last.outputs)
            here = "" if item.everywhere else "if (rank == 0) "
            text.add(f"{here}arrival_expect(arrival + {8 * s}, {size});")


def _wait(text: Text, chunks: int) -> None:
    """Every block polls the row by itself, a piece a thread: in the GPU's memory that is quickest.

    Over PCIe polls would queue up: there the first block polls, and sends what it has seen.
    """
    row = text.plan.near[ROW][0]
    blocks, one = text.plan.blocks, text.plan.one_poller and text.plan.blocks > 1
    text.open("if (!rehearsal)")
    text.add(SLOT)
    text.add("bool stop = false;")
    text.open("if (rank == 0)" if one else "")
    text.open(f"for (int c = tid; c < {chunks + 1}; c += {THREADS})")
    text.add(f"const uint4 *from = slot + (c == {chunks} ? a.head_piece : a.row_piece + c);")
    text.add("uint4 v = load_system(from);")
    text.open("for (word spins = 1; is_empty(v); spins++)")
    text.add("if (__builtin_expect(spins % 2048 == 0, 0) && *a.stop != 0) { stop = true; break; }")
    text.add("v = load_system(from);")
    text.close()
    text.add(f"if (c == {chunks} && !stop) head = v;")
    text.add(f"else *reinterpret_cast<uint4 *>(near + {row} + 4 * c) = v;")
    if one:
        place = f"near + {row} + 4 * c"
        text.add(f"const word there = shared_address(c == {chunks} ? (void *)&head : {place});")
        text.open(f"for (word b = 1; b < {blocks}; b++)")
        text.add("if (!stop) send_piece(in_block(there, b), v, in_block(arrival - 8, b));")
        text.close()
    text.close()
    text.close()
    if one:
        text.add("else if (warp == 0) stop = !row_wait(arrival - 8, row_parity, a.stop);")
    text.add("if (__syncthreads_or(stop)) break;")
    text.mark("row")
    text.add("number = head.x, kind = head.z;")
    if one:
        text.add("row_parity ^= 1;")
        expected = f"arrival_expect(arrival - 8, {16 * (chunks + 1)})"
        text.add(f"if (rank != 0 && tid == 0) {expected};")
    text.close()


def _rehearsed(text: Text) -> None:
    """The end of a step: the next one's arrivals are armed, a rehearsal is over."""
    text.open("if (rehearsal || kind & ANSWER)")
    text.add("parity ^= 1;")
    if any(item.shared for item in text.stages):
        text.open("if (tid == 0)")
        _expect(text)
        text.close()
    text.close()
    text.open("if (rehearsal)")
    text.add("cluster_sync();", "rehearsal = false;", "continue;")
    text.close()


def _body(text: Text, chunks: int, columns: Columns) -> None:
    text.add("int count = 0;")
    text.add("unsigned long long taken = 0;")
    text.add("word parity = 0, row_parity = 0, number = 0, kind = 0;")
    text.add("bool rehearsal = false;")
    text.open("while (true)")
    _wait(text, chunks)
    text.open("if (__builtin_expect(!rehearsal && (kind & RESET || count == 0), 0))")
    text.add("cluster_sync();")
    everyone = THREADS * text.plan.blocks
    text.add(f"for (int i = everyone; i < FAR; i += {everyone}) far[i] = a.starts[i];")
    text.add("count = 0;", "cluster_sync();")
    _loads(text, 0)
    text.close()
    text.open("if (rehearsal || kind & ANSWER)")
    _step(text)
    text.close()
    _rehearsed(text)
    text.add("count += count < 1 << 30;")
    text.open("")
    text.add("ANEW;")
    advance(text, chunks, columns)
    _loads(text)
    text.mark("loads")
    text.close()
    text.add("taken++;")
    text.lines.append("#ifdef PROFILE")
    text.add("if (rank == 0 && tid == 0 && kind & ANSWER)")
    text.add(f"  for (int i = 0; i < {len(text.marks)}; i++) a.profile[i] = marks[i] - marks[0];")
    text.lines.append("#endif")
    text.add("if (rank == 0 && tid == 0) *a.taken = taken;")
    text.add("rehearsal = true;")
    text.close()


def _frame(text: Text, body: list[str], sizes: dict[str, int]) -> str:
    """The whole source."""
    head = [f"const int {name} = {value};" for name, value in sizes.items()]
    stages = max(1, len(text.stages))
    common = files("tickrt.engines.resident").joinpath("resident.cuh").read_text(encoding="utf-8")
    blocks = text.plan.blocks
    return "\n".join(
        [
            comment(f"{text.program.facts.get('model', '')}: made from its program; do not edit."),
            common,
            *head,
            "",
            f'extern "C" __global__ void __cluster_dims__({blocks}, 1, 1) '
            f"__launch_bounds__({THREADS}, 1)",
            "resident(const Arguments a) {",
            "  extern __shared__ __align__(16) float near[];",
            f"  __shared__ unsigned long long arrivals[{stages + 1}];  // the first is the row's",
            "  __shared__ uint4 head;",
            "  float *partial = near + NEAR, *pool = partial + PARTIALS, *rows = pool + POOL;",
            "  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;",
            "  const word rank = block_rank();",
            f"  const int everyone = rank * {THREADS} + tid;",
            "  const word arrival = shared_address(arrivals + 1);",
            "#ifdef PROFILE",
            f"  __shared__ word marks[{len(text.marks)}];",
            "#endif",
            "  float *far = a.far;",
            "  const float *constants = a.constants;",
            *body,
            "}",
            "",
        ]
    )


def _begin(text: Text, chunks: int, columns: Columns) -> None:
    weights(text)
    text.add(f"for (int i = tid; i < NEAR + PARTIALS; i += {THREADS}) near[i] = 0.0f;")
    text.add("__syncthreads();")
    text.open("if (tid == 0)")
    text.add(f"for (int s = -1; s < {len(text.stages)}; s++) arrival_init(arrival + 8 * s);")
    text.add('asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");')
    _expect(text)
    if text.plan.one_poller:
        text.add(f"if (rank != 0) arrival_expect(arrival - 8, {16 * (chunks + 1)});")
    text.close()
    for name, constant, size in text.plan.kept:
        base, place = text.plan.near[name][0], text.plan.constants[constant][0]
        copy = f"near[{base} + i] = __ldg(constants + {place} + i)"
        text.add(f"for (int i = tid; i < {size}; i += {THREADS}) {copy};")
    for section, operations in text.program.sections.items():
        columns.keep(section, operations)
    text.add("cluster_sync();")


def _arena(places: dict[str, tuple[int, int]], program: StreamProgram) -> Floats:
    size = max([1, *(offset + n for offset, n in places.values())])
    arena = np.zeros(size, np.float32)
    for name, (offset, n) in places.items():
        start = program.buffers[name].start
        if start is not None:
            arena[offset : offset + n] = start
    return arena


def _check_room(blocks: int, shared: int) -> None:
    if shared > SHARED_BYTES - 1024:
        raise TranslateError(
            f"on {blocks} multiprocessors it needs {shared} bytes of shared memory on each; "
            f"{SHARED_BYTES - 1024} are there"
        )


def generate(
    program: StreamProgram,
    blocks: int,
    registers: int = 64,
    one_poller: bool = False,
    shared_from: int = SHARED_PRODUCTS,
    kept: int = KEPT,
) -> Kernel:
    """The kernel of a program on a cluster of `blocks` blocks.

    Args:
        registers: of a thread, for weights; the others lie in shared memory. A compiler that has to
            spill registers needs fewer: a spilled one costs hundreds of cycles here.
        one_poller: the rows lie in host memory, where only one block may poll.
        shared_from: a stage of so many products is shared out among the blocks.
        kept: floats of a constant that is read from shared memory; larger ones come from the L2.

    Raises:
        TranslateError: the model does not fit, or its step cannot run on the GPU; says why.
    """
    plan = schedule(program, blocks, registers, one_poller, shared_from, kept)
    _check_room(blocks, 4 * (plan.near_size + pool_size(plan)))  # before the text is written
    values, per_warp = blob(plan)
    chunks = math.ceil(program.width / 4)
    text = Text(plan)
    room = SHARED_BYTES // 4 - 1024 - plan.near_size - 2 * partials(text)
    columns = Columns(text, room - pool_size(plan))
    _begin(text, chunks, columns)
    begun = len(text.lines)
    _body(text, chunks, columns)
    far = _arena(plan.far, plan.program)
    sizes = {
        "NEAR": plan.near_size,
        "PARTIALS": (text.partials + 3) // 4 * 4,
        "POOL": text.pool,
        "FAR": far.size,
        "WARP_WEIGHTS": per_warp * 32,
    }
    shared = 4 * (plan.near_size + sizes["PARTIALS"] + text.pool + text.rows)
    _check_room(blocks, shared)
    return Kernel(
        _frame(text, [*text.lines[:begun], *text.kept, *text.lines[begun:]], sizes),
        blocks,
        shared,
        far,
        _arena(plan.constants, plan.program),
        values,
        tuple(text.marks),
    )
