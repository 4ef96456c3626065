"""When a program's sections run: warm, idle, first, resets and gaps; and what operations mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.small_programs import copy, program, view
from tickrt.errors import EngineError
from tickrt.program import Contract, For, Instruction, Map, Move, Reduce
from tickrt.program.ir import FUNCTIONS, OUTPUT, ROWS
from tickrt.program.reference import Reference

ROW = np.array([3.0, 4.0], np.float32)


def add(number: float, offset: int) -> Map:
    """``s[offset] += number``."""
    here = view("s", offset)
    body = (Instruction("load", (0,)), Instruction("value", (number,)), Instruction("add", (0, 1)))
    return Map((), (here,), body, (here,), (2,))


STEP = copy(view("s", 0, 1), view(OUTPUT, 0, 1), 4)


def counting(**changes: Any) -> Reference:
    """Counts how often its sections ran: outputs 0, 1 and 2 are 0.5 + the runs."""
    sections = {"step": (add(1, 0), STEP), "advance": (add(1, 1),), "first": (add(1, 2),)}
    return Reference(program(sections=sections, **changes))


def test_advance_is_idle_at_first_and_first_runs_once() -> None:
    engine = counting(warm=3, idle=2)
    for seq in range(10, 13):
        with pytest.raises(EngineError, match="needs 3 rows right before"):
            engine.submit(seq, ROW)
        engine.advance(seq, ROW)
    assert list(engine.submit(13, ROW)) == [1.5, 0.5, 1.5, 0.5]
    engine.advance(13, ROW)
    assert list(engine.submit(14, ROW)) == [2.5, 1.5, 1.5, 0.5]


def test_without_first_advance_runs_in_its_place() -> None:
    sections = {"step": (STEP,), "advance": (add(1, 1),)}
    engine = Reference(program(sections=sections, warm=2, idle=1))
    for seq in (1, 2):
        engine.advance(seq, ROW)
    assert engine.submit(3, ROW)[1] == 1.5


def test_advance_runs_on_every_row_without_idle_rows() -> None:
    engine = counting(warm=3, idle=0)
    for seq in (1, 2, 3):
        engine.advance(seq, ROW)
    assert list(engine.submit(4, ROW)) == [1.5, 2.5, 1.5, 0.5]


def test_a_reset_starts_anew() -> None:
    engine = counting(warm=1, idle=0)
    engine.advance(1, ROW)
    engine.submit(2, ROW)
    engine.reset()
    with pytest.raises(EngineError, match="the engine has the 0 rows"):
        engine.submit(2, ROW)
    engine.advance(7, ROW)
    assert list(engine.submit(8, ROW)) == [1.5, 0.5, 1.5, 0.5]


@pytest.mark.parametrize("following", [2, 4, 1])
def test_a_gap_is_a_reset(following: int) -> None:
    engine = counting(warm=2, idle=0)
    for seq in (1, 2):
        engine.advance(seq, ROW)
    with pytest.raises(EngineError, match=f"row {following}: .* up to 2, it needs 2 rows"):
        engine.submit(following, ROW)
    engine.advance(following, ROW)
    with pytest.raises(EngineError, match=f"has the 1 rows up to {following}"):
        engine.submit(following + 1, ROW)
    engine.advance(following + 1, ROW)
    assert list(engine.submit(following + 2, ROW)) == [1.5, 1.5, 1.5, 0.5]


def test_a_program_that_is_not_sound_does_not_start() -> None:
    with pytest.raises(EngineError, match="which nothing wrote"):
        Reference(program(copy(view("t"), view(OUTPUT))))


def test_rows_lie_in_a_mirrored_ring() -> None:
    """The last T − 1 rows start at ring row seq % T + 2, the newest lies at seq % T."""
    known = view(ROWS, 4, 2, moves=(Move("seq", 2, 0, 3),))
    newest = view(ROWS, 0, moves=(Move("seq", 2, 0, 3),))
    sections = {
        "step": (copy(view("s", 0, 1), view(OUTPUT, 0, 1), 2), copy(newest, view(OUTPUT, 2))),
        "advance": (copy(known, view("s", 0, 1), 2),),
    }
    engine = Reference(program(sections=sections, warm=2, idle=1))
    for seq in range(20):
        row = np.array([seq, 0], np.float32)
        if seq >= 2:
            assert list(engine.submit(seq, row))[:3] == [seq - 2, seq - 1, seq]
        engine.advance(seq, row)


def _step(*operations: Any) -> list[float]:
    engine = Reference(program(*operations, warm=0, idle=0))
    return [float(v) for v in engine.submit(0, ROW)]


C = [float(v) for v in np.linspace(-1, 1, 6).astype(np.float32)]


def test_operations() -> None:
    left, right = view("c", 0, 3, 0, 1), view("c", 0, 0, 3, 1)
    square = Contract((2, 2), (3,), left, right, view(OUTPUT, 0, 2, 1))
    expected = np.array(C).reshape(2, 3) @ np.array(C).reshape(2, 3).T
    np.testing.assert_allclose(_step(square), expected.ravel(), rtol=1e-6)
    left, right, start = view("c", 0, 1), view("c", 4, 0), view("s", 0, 0)
    plain = Contract((2,), (), left, right, view(OUTPUT, 0, 1), start)
    np.testing.assert_allclose(_step(plain)[:2], np.array(C[:2]) * C[4] + 0.5, rtol=1e-6)
    for kind, fold in (("sum", np.sum), ("max", np.max), ("min", np.min), ("prod", np.prod)):
        reduced = Reduce((2,), (3,), kind, view("c", 5, -3, -1), view(OUTPUT, 0, 1))
        expected = fold(np.array(C[::-1]).reshape(2, 3), axis=1)
        np.testing.assert_allclose(_step(reduced)[:2], expected, rtol=1e-6)
    kept = Reduce((2,), (), "sum", view("c", 1, 1), view(OUTPUT, 0, 1))
    assert _step(kept)[:2] == C[1:3]
    turns = copy(view("c", 4, moves=(Move("i", -2),)), view(OUTPUT, 0, moves=(Move("i", 1, 1, 3),)))
    assert _step(For("i", 3, (turns,)))[:3] == [C[0], C[4], C[2]]


def test_a_line_is_rounded_to_float32() -> None:
    """1e8 + 1 − 1e8 is 0 in float32: joining two maps must not make it 1."""
    big, one = Instruction("value", (1e8,)), Instruction("value", (1.0,))
    body = (big, one, Instruction("add", (0, 1)), Instruction("sub", (2, 0)))
    assert _step(Map((), (), body, (view(OUTPUT),), (3,)))[0] == 0.0


ARGUMENTS = (0.75, -1.25, 2.5)
EXPECTED: dict[str, float] = {
    "add": -0.5,
    "sub": 2.0,
    "mul": -0.9375,
    "div": -0.6,
    "max": 0.75,
    "min": -1.25,
    "pow": 0.75**-1.25,
    "less": 0.0,
    "equal": 0.0,
    "less_equal": 0.0,
    "where": -1.25,
    "neg": -0.75,
    "abs": 0.75,
    "exp": np.exp(0.75),
    "log": np.log(0.75),
    "sqrt": 0.75**0.5,
    "tanh": np.tanh(0.75),
    "sigmoid": 1 / (1 + np.exp(-0.75)),
    "erf": 0.7111556337,
    "floor": 0.0,
    "ceil": 1.0,
    "round": 1.0,
    "sin": np.sin(0.75),
    "cos": np.cos(0.75),
}


def test_every_function_has_a_meaning() -> None:
    assert set(EXPECTED) | {"load", "value"} == set(FUNCTIONS)
    values = tuple(Instruction("value", (a,)) for a in ARGUMENTS)
    for name, expected in EXPECTED.items():
        body = (*values, Instruction(name, tuple(range(FUNCTIONS[name]))))
        found = _step(Map((), (), body, (view(OUTPUT),), (3,)))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
