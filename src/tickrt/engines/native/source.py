"""A program as C.

Entry point: `generate(program)` → `Native`: the source, and where everything lies in memory.

The source holds no weights: they are packed into the arena at load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tickrt.compile.codes import ENGINE_STALE, OK, PENDING
from tickrt.engines.native.arena import Arena, lay_out
from tickrt.engines.native.contracts import write_changes, write_contract
from tickrt.engines.native.loops import write_map, write_reduce
from tickrt.engines.native.schedule import Dot, Lanes, Pack, Plain, schedule
from tickrt.engines.native.sparse import find_sparse
from tickrt.engines.native.writer import Writer, comment
from tickrt.program import Contract, For, Map, Operation, StreamProgram
from tickrt.program.ir import OUTPUT, operands, walk

__all__ = ["Native", "count_operations", "generate"]

_FOLDER = Path(__file__).parent
_ORDER = ("step", "advance", "first")


@dataclass(frozen=True)
class Native:
    """A program in C."""

    program: StreamProgram  # with what is prepared for products that are cut short
    arena: Arena
    source: str
    original: StreamProgram


def _packs(plan: Lanes | Dot | Plain) -> Iterator[Pack]:
    if isinstance(plan, Lanes) and plan.pack is not None:
        yield plan.pack
    if isinstance(plan, Dot):
        yield from (pack for pack in plan.packs if pack is not None)


def _raw(op: Operation, plan: Lanes | Dot | Plain | None) -> Iterator[str]:
    """Buffers that it reads or writes as they are."""
    hidden = set()
    if isinstance(op, Contract) and isinstance(plan, Lanes) and plan.pack is not None:
        hidden.add(id(plan.vector))
    if isinstance(op, Contract) and isinstance(plan, Dot):
        hidden.update(id(view) for view, pack in zip((op.a, op.b), plan.packs, strict=True) if pack)
    reads, writes = operands(op)
    yield from (view.buffer for view in (*reads, *writes) if id(view) not in hidden)


def generate(program: StreamProgram, weights: str = "fp32", wide: bool = True) -> Native:
    """The program in C.

    Args:
        weights: type of large weight matrices on the path: ``fp32``, ``bf16``, ``int8``.
        wide: in tiles for the registers of AVX-512; they run elsewhere, too, but not so fast.
    """
    original = program
    program, sparse = find_sparse(original)
    sections = {name: program.sections[name] for name in _ORDER if name in program.sections}
    plans: dict[int, Lanes | Dot | Plain] = {}
    packs: list[Pack] = []
    raw: list[str] = []
    for name, operations in sections.items():
        short = {id(operations[n]): s for n, s in sparse.items() if name == "step"}
        for op in walk(operations):
            plan = None
            if isinstance(op, Contract):
                plan = plans[id(op)] = schedule(op, program, short.get(id(op)), weights, wide)
                packs += _packs(plan)
            raw += _raw(op, plan)
            if isinstance(plan, Lanes) and plan.sparse and plan.sparse.base:
                raw.append(plan.sparse.base)
    arena = lay_out(program, packs, raw)
    w = Writer(program, arena)
    _write_head(w)
    for name, operations in sections.items():
        w.line()
        with w.block(f"static void {name}(const float *rows, float *m, int64_t seq)"):
            w.line("(void)rows, (void)m, (void)seq;")
            if name == "step" and any(found.kind == "row" for found in sparse.values()):
                write_changes(w)
            for op in operations:
                _write(w, op, plans)
    if "first" not in sections:
        w.line()
        w.line("#define first advance")
    files = ["prelude.c", *(["sparse.c"] if sparse else [])]
    files += [*(["weights.c"] if weights != "fp32" else []), "handle.c"]
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in files]
    return Native(program, arena, "\n".join([*texts[:-1], "\n".join(w.lines), texts[-1]]), original)


def count_operations(program: StreamProgram) -> int:
    """Operations of all sections, those inside of loops once."""
    return sum(1 for section in program.sections.values() for _ in walk(section))


def _write_head(w: Writer) -> None:
    """Constants: places in the arena, and what the handle needs."""
    program, arena = w.program, w.arena
    facts = ", ".join(f"{k} {v}" for k, v in program.facts.items())
    w.line(f"/* {comment(facts)} */")
    w.line("enum {")
    for name, place in w.names.items():
        buffer = program.buffers[name]
        w.line(
            f"    {place} = {arena.buffers[name]}, /* {comment(name)}: {buffer.kind}, "
            f"{buffer.size} */"
        )
    constants = {
        "STATES": arena.states,
        "STARTS": arena.starts,
        "STATES_SIZE": arena.states_size,
        "OUTPUTS": arena.buffers[OUTPUT],
        "OUTPUTS_SIZE": program.outputs,
        "WARM": program.warm,
        "IDLE": program.idle,
        "HAS_FIRST": int("first" in program.sections),
        "HAS_STATES": int(bool(program.sections["advance"])),
        "CODE_OK": OK,
        "CODE_PENDING": PENDING,
        "CODE_STALE": ENGINE_STALE,
    }
    for constant, value in constants.items():
        w.line(f"    {constant} = {value},")
    w.line("};")


def _write(w: Writer, op: Operation, plans: dict[int, Lanes | Dot | Plain]) -> None:
    """One operation, with its label."""
    sizes = " x ".join(str(n) for n in getattr(op, "loops", ())) or "1"
    w.line(f"/* {comment(op.label)}: {type(op).__name__} of {sizes} */")
    if isinstance(op, For):
        with w.block(f"for (long {op.index} = 0; {op.index} < {op.count}; {op.index}++)"):
            for inner in op.body:
                _write(w, inner, plans)
        return
    with w.block():
        if isinstance(op, Map):
            write_map(w, op)
        elif isinstance(op, Contract):
            write_contract(w, op, plans[id(op)])
        else:
            write_reduce(w, op)
