"""Every program that is not sound is refused, with the place and the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_programs import any_program, buffers, copy, program, sound_program, view
from tickrt.errors import EngineError
from tickrt.program import (
    Buffer,
    Contract,
    For,
    Instruction,
    Map,
    Move,
    Reduce,
    StreamProgram,
)
from tickrt.program.check import check
from tickrt.program.ir import OUTPUT, ROWS
from tickrt.program.reference import Reference

LOAD = Instruction("load", (0,))
C_ROWS, ONE = view("c", 0, 3, 1), view("c", 0, 0)


def lines(*body: Instruction, results: tuple[int, ...] = (0,)) -> Map:
    return Map((2,), (view("c", 0, 1),), body, (view(OUTPUT, 0, 1),), results)


def moving(*moves: Move, offset: int = 0, count: int = 3) -> For:
    """Copies an element of u, moved, in a loop of `count` turns."""
    fill = copy(view("c", 0, 0), view("u", 0, 1), 12)
    return For("i", count, (fill, copy(view("u", offset, moves=moves), view(OUTPUT, 0))))


def test_what_is_sound_passes() -> None:
    made = program(
        copy(view(ROWS, 2, 1, moves=(Move("seq", 2, 0, 3),)), view("t", 0, 1), 2),
        copy(view("s", 4, -1), view("t", 3, 1), 5),
        Contract((2,), (3,), C_ROWS, view("t", 0, 0, 1), view("u", 0, 1)),
        Contract((2,), (3,), C_ROWS, view("t", 0, 0, 1), view("u", 0, 1), view("u", 0, 1)),
        Reduce((2,), (2,), "max", view("t", 0, 2, 1), view(OUTPUT, 0, 2)),
        copy(view("u", 0, 1), view("u", 0, 1), 2),  # in place, element by element
        copy(view("u", 0, 1), view("u", 2, 1), 2),  # beside it
        moving(Move("i", 4, 0)),
        moving(Move("i", -4, 0), offset=8),
        moving(Move("i", 11, 1, 2)),
    )
    assert check(made) is made


OUT_OF_RANGE = {
    "beyond": copy(view("c", 3, 1), view(OUTPUT, 0, 1), 4),
    "far beyond": copy(view("c", 2**40, 0), view(OUTPUT, 0, 1), 4),
    "below": copy(view("c", 2, -1), view(OUTPUT, 0, 1), 4),
    "negative": copy(view("c", -1, 1), view(OUTPUT, 0, 1), 4),
    "target": copy(view("c", 0, 1), view(OUTPUT, 1, 1), 4),
    "folds": Reduce((2,), (4,), "sum", view("c", 0, 1, 2), view(OUTPUT, 0, 1)),
    "a factor": Contract((2,), (4,), view("c", 0, 1, 2), view("c", 0, 0, 0), view(OUTPUT, 0, 1)),
    "start": Contract((2,), (), ONE, ONE, view(OUTPUT, 0, 1), view("c", 5, 1)),
    "a move": moving(Move("i", 6)),
    "a move back": moving(Move("i", -5), offset=9),
    "a shifted move": moving(Move("i", 4, 1)),
    "a move with a period": moving(Move("i", 4, 0, 4)),
    "a move with seq": copy(view(ROWS, 7, 1, moves=(Move("seq", 2, 0, 3),)), view(OUTPUT, 0, 1), 2),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_views_stay_in_their_buffer(name: str) -> None:
    reason = r"program: step\[0\].* reaches -?\d+ … \d+ of '\w+', which has \d+"
    with pytest.raises(EngineError, match=reason):
        check(program(OUT_OF_RANGE[name]))


REFUSED: dict[str, tuple[Any, str]] = {
    "no buffer": (copy(view("x", 0), view(OUTPUT, 0)), "there is no buffer 'x'"),
    "strides": (copy(view("c", 0, 1), view(OUTPUT, 0)), r"1 strides for loops \(\)"),
    "loops of none": (copy(view("c", 0, 1), view(OUTPUT, 0, 1), 0), "must be 1 or more"),
    "folds of none": (
        Reduce((), (0,), "sum", view("c", 0, 1), view(OUTPUT)),
        "must be 1 or more",
    ),
    "reduction": (Reduce((), (2,), "mean", view("c", 0, 1), view(OUTPUT)), "reduction 'mean'"),
    "writes a constant": (copy(view("s"), view("c")), "writes to 'c'"),
    "writes rows": (copy(view("s"), view(ROWS)), "writes to 'rows'"),
    "scratch": (copy(view("t"), view(OUTPUT)), "reads scratch 't', which nothing wrote"),
    "scratch later": (
        For("i", 2, (copy(view("t"), view("u")), copy(view("c"), view("t")))),
        "reads scratch 't'",
    ),
    "twice": (copy(view("c", 0, 1), view(OUTPUT, 0, 0), 2), "writes an element twice"),
    "twice across": (
        copy(view("c", 0, 1, 1), view("t", 0, 2, 1), 2, 3),
        "writes an element twice",
    ),
    "over itself": (copy(view("s", 0, 1), view("s", 1, 1), 3), "writes over what it reads"),
    "two outputs": (
        Map((2,), (), (Instruction("value", (1.0,)),), (view("s", 0, 1), view("s", 1, 1)), (0, 0)),
        "writes over",
    ),
    "a factor": (
        Contract((2,), (2,), view("s", 0, 1, 1), view("c", 0, 0, 1), view("s", 0, 1)),
        "writes over what it reads",
    ),
    "a fold": (Reduce((2,), (2,), "sum", view("s", 0, 2, 1), view("s", 0, 1)), "writes over"),
    "function": (lines(LOAD, Instruction("cbrt", (0,))), r"line 1: .*cbrt"),
    "arguments": (lines(LOAD, Instruction("add", (0,))), "line 1: .*add"),
    "a later line": (lines(LOAD, Instruction("neg", (1,))), "line 1: .* reads what is not there"),
    "a negative line": (lines(LOAD, Instruction("neg", (-1,))), "reads what is not there"),
    "half a line": (lines(LOAD, Instruction("neg", (0.0,))), "reads what is not there"),
    "no input": (lines(Instruction("load", (1,))), "line 0: .* reads what is not there"),
    "no number": (lines(Instruction("value", ("1",))), "line 0: .* is no number"),  # type: ignore[arg-type]
    "results": (lines(LOAD, results=(1,)), r"results \(1,\)"),
    "too few results": (lines(LOAD, results=()), r"results \(\)"),
    "count": (For("i", 0, ()), "index 'i', count 0"),
    "seq as an index": (For("seq", 2, ()), "index 'seq'"),
    "index": (For("i; exit(1)", 2, ()), "index 'i; exit"),
    "index twice": (For("i", 2, (For("i", 2, ()),)), "index 'i', count 2"),
    "unknown index": (copy(view("c", moves=(Move("j", 1),)), view(OUTPUT)), "moves with 'j'"),
    "seq without end": (copy(view("c", moves=(Move("seq", 0),)), view(OUTPUT)), "without end"),
    "period": (copy(view("c", moves=(Move("seq", 1, 0, -3),)), view(OUTPUT)), "0 or more"),
    "shift": (copy(view("c", moves=(Move("seq", 1, -1, 3),)), view(OUTPUT)), "0 or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations(name: str) -> None:
    operation, reason = REFUSED[name]
    with pytest.raises(EngineError, match=rf"program: step\[0\].*{reason}"):
        check(program(operation))


def _with(**changes: Buffer | None) -> StreamProgram:
    made = {**buffers(), **changes}
    return program(buffers={n: b for n, b in made.items() if b is not None})


FRAMES: dict[str, tuple[StreamProgram, str]] = {
    "window": (program(window=0), "window 0"),
    "width": (program(width=-1), "width -1"),
    "outputs": (program(outputs=0), "outputs 0"),
    "idle": (program(idle=3), "idle 3 and warm 2"),
    "no step": (program(sections={"advance": ()}), "no section 'step'"),
    "no advance": (program(sections={"step": ()}), "no section 'advance'"),
    "section": (program(sections={"step": (), "advance": (), "last": ()}), "section 'last'"),
    "no rows": (_with(rows=None), "kind 'rows'"),
    "no outputs": (_with(output=None), "kind 'output'"),
    "rows": (_with(rows=Buffer(ROWS, 6, "rows")), "kind 'rows', of that name and size 12"),
    "size of outputs": (_with(output=Buffer(OUTPUT, 3, "output")), "size 4"),
    "two outputs": (_with(second=Buffer("second", 4, "output")), "kind 'output'"),
    "kind": (_with(x=Buffer("x", 1, "heap")), "'heap'"),
    "name": (_with(x=Buffer("y", 1, "state")), "buffer 'x': name 'y'"),
    "size": (_with(x=Buffer("x", 0, "state")), "size 0"),
    "no values": (_with(x=Buffer("x", 1, "constant")), "a constant without values"),
    "values": (_with(x=Buffer("x", 2, "constant", np.zeros(1, np.float32))), "does not fill it"),
    "start": (_with(x=Buffer("x", 1, "scratch", np.zeros(1, np.float32))), "has no start"),
    "too much": (_with(x=Buffer("x", 2**31 - 1, "scratch")), "at most 2147483647"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    made, reason = FRAMES[name]
    with pytest.raises(EngineError, match=f"program: .*{reason}"):
        check(made)


def test_every_section_is_checked_on_its_own() -> None:
    write, read = copy(view("c"), view("t")), copy(view("t"), view("s"))
    check(program(write, advance=(write, read)))
    with pytest.raises(EngineError, match=r"advance\[0\] \(copy\): reads scratch 't'"):
        check(program(write, advance=(read,)))


GUARD = 64


class Guarded(Reference):
    """Its buffers lie between guards."""

    def __init__(self, made: StreamProgram) -> None:
        super().__init__(made)
        self.whole = {
            name: np.pad(memory, GUARD, constant_values=77) for name, memory in self.memory.items()
        }
        for name, whole in self.whole.items():
            self.memory[name] = whole[GUARD:-GUARD]


@settings(max_examples=400, deadline=None)
@given(st.one_of(any_program(), sound_program()))
def test_what_passes_touches_nothing_else(made: StreamProgram) -> None:
    try:
        check(made)
    except EngineError:
        return
    engine = Guarded(made)
    constant = engine.memory["c"].copy()
    for seq in range(6):
        row = np.array([seq, -seq], np.float32)
        if seq >= made.warm:
            engine.submit(seq, row)
        engine.advance(seq, row)
    for memory in engine.whole.values():
        assert (memory[:GUARD] == 77).all()
        assert (memory[-GUARD:] == 77).all()
    np.testing.assert_array_equal(engine.memory["c"], constant)


def test_the_place_of_an_inner_operation_is_named() -> None:
    inner = replace(copy(view("c", 9), view(OUTPUT)), label="Add head")
    with pytest.raises(EngineError, match=r"program: step\[1\] \(For\)\[0\] \(Add head\): "):
        check(program(copy(view("c"), view("s")), For("i", 2, (inner,))))
