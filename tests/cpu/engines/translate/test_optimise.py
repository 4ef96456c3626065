"""Every pass of the optimiser leaves what a program computes as it was, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from helpers.tensor_programs import SIZE, WINDOW, stream, tensor_program
from tickrt.engines.translate import optimise as passes
from tickrt.engines.translate.optimise import optimise
from tickrt.program import (
    Buffer,
    Contract,
    For,
    Instruction,
    Map,
    Move,
    Operation,
    Reduce,
    StreamProgram,
    View,
)
from tickrt.program.check import check
from tickrt.program.ir import OUTPUT, ROWS

LOAD = Instruction("load", (0,))
NEWEST = (Move("seq", SIZE, 0, WINDOW),)


def view(name: str, offset: int = 0, *strides: int, moves: Any = ()) -> View:
    return View(name, offset, strides or (1,), moves)


def copy(source: View, target: View, loops: tuple[int, ...] = (SIZE,)) -> Map:
    return Map(loops, (source,), (LOAD,), (target,), (0,), "copy")


def mapped(
    function: str, sources: list[View], target: View, loops: tuple[int, ...] = (SIZE,)
) -> Map:
    """One function of the inputs."""
    loads = tuple(Instruction("load", (i,)) for i in range(len(sources)))
    last = Instruction(function, tuple(range(len(sources))))
    return Map(loops, tuple(sources), (*loads, last), (target,), (len(sources),), function)


def program(
    *step: Operation, advance: tuple[Operation, ...] = (), mode: str = "pre"
) -> StreamProgram:
    values = np.random.default_rng(5).uniform(0.5, 1, (3, SIZE)).astype(np.float32)
    buffers = [
        Buffer(ROWS, 2 * WINDOW * SIZE, "rows"),
        Buffer(OUTPUT, SIZE, "output"),
        Buffer("c", SIZE, "constant", values[0]),
        Buffer("s", SIZE, "state", values[1]),
        Buffer("r", SIZE, "state", values[2]),
        *(Buffer(name, SIZE, "scratch") for name in "tuvw"),
    ]
    sections = {"step": step, "advance": advance}
    named = {b.name: b for b in buffers}
    return check(StreamProgram(WINDOW, SIZE, SIZE, 2, 0, named, sections, {"mode": mode}))


def same(made: StreamProgram) -> StreamProgram:
    """The optimised program, which computes the same."""
    small = check(optimise(made))
    np.testing.assert_array_equal(stream(small), stream(made))
    return small


def shape(made: StreamProgram, section: str = "step") -> list[str]:
    return [op.label for op in made.sections[section]]


ROW, OUT = view(ROWS, moves=NEWEST), view(OUTPUT)
S, R, T, U, V, C = (view(n) for n in "srtuvc")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tensor_program())
def test_random_programs(made: StreamProgram) -> None:
    expected = stream(made)

    def fused(program: StreamProgram) -> StreamProgram:
        return passes._fuse(program, copies=True)

    for one in (
        passes._fold,
        passes._hoist,
        passes._begin,
        passes._forward,
        fused,
        passes._drop,
        optimise,
    ):
        np.testing.assert_array_equal(stream(check(one(made))), expected, err_msg=str(one))


def test_what_depends_on_constants_is_one() -> None:
    small = same(program(mapped("exp", [C], T), mapped("add", [T, ROW], OUT)))
    assert shape(small) == ["add"]
    assert small.buffers["t"].kind == "constant"
    np.testing.assert_allclose(small.buffers["t"].start, np.exp(small_constant()), rtol=1e-6)


def small_constant() -> Any:
    return program().buffers["c"].start


def test_half_a_buffer_is_no_constant() -> None:
    half = copy(view("c", 0, 1), view("t", 0, 1), (6,))
    other = mapped("neg", [view("c", 6, 1)], view("t", 6, 1), (6,))
    small = same(program(half, other, mapped("add", [T, ROW], OUT)))
    assert small.buffers["t"].kind == "state"  # made in the advance
    assert shape(small, "advance") == ["copy", "neg"]


def test_a_constant_that_is_written_again_is_none() -> None:
    operations = mapped("exp", [C], T), mapped("add", [T, ROW], U), mapped("neg", [ROW], T)
    same(program(*operations, mapped("mul", [T, U], OUT)))


def test_what_a_step_computes_from_states_alone_moves_to_the_advance() -> None:
    grow = mapped("mul", [S, C], S)
    small = same(program(mapped("tanh", [S], T), mapped("add", [T, ROW], OUT), advance=(grow,)))
    assert (shape(small), shape(small, "advance")) == (["add"], ["mul"])  # as one map
    assert len(small.sections["advance"][0].outputs) == 2  # type: ignore[union-attr]
    assert small.buffers["t"].kind == "state"


def test_what_moves_reads_the_slot_of_the_next_row() -> None:
    slot = view("s", 0, 1, moves=(Move("seq", 6, 0, 2),))
    operations = mapped("neg", [slot], view("t"), (6,)), mapped("add", [view("t"), ROW], OUT, (6,))
    grow = mapped("mul", [S, C], S)
    small = same(program(*operations, advance=(grow,)))
    assert shape(small) == ["add"]


def test_nothing_moves_that_the_step_changes() -> None:
    """u is a copy of a state, and then what the step makes of it: it must start anew each time."""
    start, change = copy(S, U), mapped("add", [U, ROW], U)
    small = same(program(start, change, copy(U, OUT), advance=(mapped("mul", [S, C], S),)))
    assert shape(small, "advance") == ["mul"]


def test_nothing_moves_that_is_read_before() -> None:
    first = copy(ROW, T), mapped("add", [T, S], U)
    second = mapped("neg", [S], T), mapped("mul", [T, U], OUT)
    same(program(*first, *second, advance=(mapped("mul", [S, C], S),)))


def test_the_known_part_of_a_tensor_moves_without_the_new_one() -> None:
    """As keys of attention: those of older rows, and that of the newest beside them."""
    known, new = copy(view("s"), view("t"), (11,)), copy(ROW, view("t", 11, 0), ())
    known = replace(known, label="known")
    new = replace(new, inputs=(view(ROWS, 0, moves=NEWEST),), loops=(1,), label="new")
    total = Reduce((), (SIZE,), "sum", T, View(OUTPUT, 0, ()), "sum")
    small = same(program(known, new, total, advance=(mapped("mul", [S, C], S),)))
    assert shape(small) == ["new", "sum"]


def test_in_whole_mode_nothing_moves() -> None:
    made = program(mapped("neg", [S], T), mapped("add", [T, ROW], OUT), mode="whole")
    assert same(made).sections["advance"] == ()


def test_a_bank_moves_on_in_place() -> None:
    """What is copied into the state is written there at once."""
    row, start, out = view(ROWS, 0, 0, 0, 1, moves=NEWEST), view("s", 0, 4, 1), view("t", 0, 4, 1)
    weights = Contract((3, 4), (4,), row, view("c", 0, 0, 1, 0), out, start, "w")
    made = program(copy(S, OUT), advance=(weights, mapped("tanh", [T], U), copy(U, S)))
    small = same(made)
    assert shape(small, "advance") == ["w", "tanh"]
    assert small.sections["advance"][1].outputs == (S,)  # type: ignore[union-attr]


def test_a_copy_into_a_buffer_that_is_read_in_between_stays() -> None:
    advance = (mapped("tanh", [S], T), mapped("add", [S, ROW], R), copy(T, S))
    small = same(program(mapped("sub", [S, R], OUT), advance=advance))
    reading = [op for op in small.sections["advance"] if S in op.inputs]  # type: ignore[union-attr]
    assert reading


def test_a_copy_into_what_its_producer_reads_elsewhere_stays() -> None:
    turned = mapped("neg", [view("s", 11, -1)], T)
    small = same(program(copy(S, OUT), advance=(turned, copy(T, S))))
    assert shape(small, "advance") == ["neg", "copy"]


def test_a_product_is_not_written_over_its_factors() -> None:
    product = Contract(
        (3, 4), (4,), view("s", 0, 4, 0, 1), view("c", 0, 0, 1, 0), view("t", 0, 4, 1)
    )
    small = same(program(copy(S, OUT), advance=(product, copy(T, S))))
    assert len(small.sections["advance"]) == 2


def test_a_bias_is_where_the_product_begins() -> None:
    left, right = view(ROWS, 0, 0, 0, 1, moves=NEWEST), view("c", 0, 0, 1, 0)
    product = Contract((3, 4), (4,), left, right, view("t", 0, 4, 1), None, "product")
    bias = mapped("add", [view("c", 0, 4, 1), view("t", 0, 4, 1)], view("u", 0, 4, 1), (3, 4))
    small = same(program(product, bias, mapped("tanh", [U], OUT)))
    assert shape(small) == ["product", "tanh"]
    again = mapped("mul", [T, U], OUT)  # the product itself is read too
    assert len(same(program(product, bias, again)).sections["step"]) == 2
    late = program(product, mapped("exp", [ROW], V), mapped("add", [T, V], OUT))
    assert shape(same(late)) == ["product", "add"]  # what is added is made later
    square = replace(product, a=view("s", 0, 0, 0, 1))
    same(program(copy(S, OUT), advance=(square, mapped("add", [T, S], S))))


def test_a_producer_that_two_read() -> None:
    """Cheap or read once: computed where it is read; else once."""
    read_twice = mapped("tanh", [ROW], T), mapped("add", [T, C], U), mapped("mul", [T, U], OUT)
    assert len(same(program(*read_twice)).sections["step"]) == 1  # merged, tanh once
    body = same(program(*read_twice)).sections["step"][0].body  # type: ignore[union-attr]
    assert [i.function for i in body].count("tanh") == 1
    repeated = mapped("tanh", [view(ROWS, 0, moves=NEWEST)], view("t"), (3,))
    each = mapped("add", [view("t", 0, 0, 1), view("c", 0, 3, 1)], view(OUTPUT, 0, 3, 1), (4, 3))
    assert shape(same(program(repeated, each))) == ["tanh", "add"]


def test_a_producer_whose_input_changes_before_it_is_read() -> None:
    operations = mapped("tanh", [S], T), mapped("add", [S, ROW], S)
    turned = copy(view("t", 11, -1), OUT)
    same(program(*operations, turned))


def test_a_view_that_runs_over_the_end_of_an_axis() -> None:
    """Reading a matrix along its diagonal is no view of what made it from a repeated row."""
    row, column = view(ROWS, 0, 0, 1, moves=NEWEST), view("c", 0, 4, 0)
    wide = mapped("add", [row, column], view("t", 0, 4, 1), (3, 4))
    for strides in ((5,), (3,), (-3,)):
        offset = 11 if strides[0] < 0 else 0
        diagonal = copy(view("t", offset, *strides), OUT, (3,))
        same(program(copy(C, OUT), wide, diagonal))


def test_a_state_that_only_the_advance_knows_is_kept() -> None:
    count = mapped("add", [R, C], R)
    grow = mapped("mul", [R, C], S)
    small = same(program(copy(S, OUT), advance=(count, grow)))
    assert small.buffers["r"].kind == "state"


def test_what_nobody_reads_is_gone() -> None:
    operations = mapped("neg", [ROW], T), mapped("neg", [T], U), copy(ROW, OUT)
    small = same(program(*operations, advance=(mapped("mul", [R, C], V), copy(V, U))))
    assert (shape(small), shape(small, "advance")) == (["copy"], [])
    assert set(small.buffers) == {ROWS, OUTPUT}


@pytest.mark.parametrize("count", [1, 3])
def test_a_loop_that_carries_a_value(count: int) -> None:
    inner = mapped("add", [T, ROW], U), mapped("tanh", [U], T)
    made = program(copy(S, T), For("i", count, inner, "again"), copy(T, OUT))
    assert shape(same(made))[:2] == ["copy", "again"]
