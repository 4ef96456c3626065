"""A program as text: every operation is there, and says what it computes."""

from __future__ import annotations

from hypothesis import given, settings

from helpers.programs import checked
from helpers.programs import program as program_of
from helpers.small_programs import any_program, copy, program, view
from tickrt.models.architectures import zoo
from tickrt.program import Contract, For, Instruction, Map, Move, Reduce, StreamProgram
from tickrt.program.ir import OUTPUT, ROWS, Operation, operands, walk
from tickrt.program.text import describe

NEWEST = (Move("seq", 2, 0, 3),)


def step_of(*operations: Operation) -> list[str]:
    text = describe(program(*operations))
    lines = text[text.index("\nstep:") : text.index("\nadvance:")].splitlines()[2:]
    return [line.removeprefix("    ") for line in lines if line]


def test_a_sum_of_products() -> None:
    rows = view(ROWS, 0, 0, 1, moves=NEWEST)
    op = Contract(
        (2,), (2,), rows, view("c", 1, 2, 1), view(OUTPUT, 0, 1), view("s", 0, 1), "Gemm g"
    )
    assert step_of(op) == [
        "# Gemm g",
        "for i < 2:",
        "    output[i] = s[i] + sum(rows[2·(seq mod 3) + j] · c[2·i + j + 1] for j < 2)",
    ]


def test_a_fold() -> None:
    op = Reduce((2,), (2, 3), "max", view("u", 11, -6, 0, -1), view(OUTPUT, 1, 2))
    assert step_of(op) == [
        "for i < 2:",
        "    output[2·i + 1] = max(u[-6·i - k + 11] for j < 2, k < 3)",
    ]


def test_an_expression() -> None:
    body = (
        Instruction("load", (0,)),
        Instruction("value", (0.1,)),
        Instruction("add", (0, 1)),
        Instruction("sigmoid", (2,)),
        Instruction("neg", (3,)),
        Instruction("where", (4, 0, 1)),
        Instruction("mul", (3, 5)),
    )
    op = Map((), (view("c", 4),), body, (view("s"), view(OUTPUT)), (6, 3))
    assert step_of(op) == [
        "v1 = sigmoid(c[4] + 0.1)",
        "s[0] = v1 · where(-v1, c[4], 0.1)",
        "output[0] = v1",
    ]


def test_a_loop_around_operations() -> None:
    inner = copy(
        view("c", 0, 1, moves=(Move("i", 2, -1),)), view("u", 0, 1, moves=(Move("i", 2),)), 2
    )
    assert step_of(For("i", 3, (inner,), "again")) == [
        "# again",
        "for i < 3:",
        "    # copy",
        "    for j < 2:",
        "        u[2·i + j] = c[2·(i - 1) + j]",
    ]


def test_the_seed_model_in_miniature() -> None:
    made = program_of(checked(zoo.recurrent("LSTM", 1, 4, 6, 5)), "bank")
    assert made is not None
    text = describe(made)
    assert "mode bank" in text
    assert "\n    6 rows × 5 in, 3 out; runs from row 6 on\n" in text
    assert "for i < 16:" in text
    assert "rows[5·(seq mod 6) + j]" in text
    assert "tanh(" in text


@settings(max_examples=100, deadline=None)
@given(any_program())
def test_every_operation_is_there(made: StreamProgram) -> None:
    text = describe(made)
    operations = [op for section in made.sections.values() for op in walk(section)]
    outputs = sum(len(operands(op)[1]) for op in operations)
    assert text.count("] = ") == outputs
