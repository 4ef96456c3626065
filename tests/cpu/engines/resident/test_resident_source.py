"""What a kernel is generated from, what is refused and why, and that the CUDA compiler takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.kernel_programs import Layers
from helpers.programs import MODELS, checked, program
from tickrt.engines.resident import compile as compile_
from tickrt.engines.resident.compile import build, compiler
from tickrt.engines.resident.kernel import generate
from tickrt.engines.resident.schedule import schedule
from tickrt.engines.resident.text import FOLDS, comment, expression, number, turn
from tickrt.engines.translate import TranslateError
from tickrt.errors import BuildError
from tickrt.models.architectures import zoo
from tickrt.program import Instruction, Move, View
from tickrt.program.ir import FUNCTIONS, OUTPUT, REDUCTIONS


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - {"load", "value"}))
def test_every_function_has_a_form(function: str) -> None:
    body = [Instruction("load", (i,)) for i in range(3)]
    body.append(Instruction(function, (0, 1, 2)[: FUNCTIONS[function]]))
    statements, names = expression(body, lambda i: f"x[{i}]")
    assert len(statements) == len(names) == 4
    assert all(f"v{i}" in statements[3] for i in range(FUNCTIONS[function]))


def test_every_reduction_has_a_form() -> None:
    assert set(FOLDS) == set(REDUCTIONS)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 1e22, -1e-30, 3e38, 1e-45])
def test_literals_are_the_numbers(value: float) -> None:
    text = number(value)
    assert text.startswith("(") == text.endswith(")") == text.startswith("(-")
    found = np.float32(text.strip("()").removesuffix("f"))
    assert found.tobytes() == np.float32(value).tobytes()


@pytest.mark.parametrize(
    "label", ["a\nasm", "a\r\n}", "x */ y", "ends with \\", "??/", 'say "{', "\x85 \u2028 é", "a{"]
)
def test_a_label_stays_in_its_line(label: str) -> None:
    model = checked(MODELS["lstm-1"]())
    made = program(model, "bank")
    assert made is not None
    assert len(comment(label).splitlines()) == 1
    assert not set(comment(label)) & set("\\?{}")
    plain = generate(made, 2).source
    sections = {
        name: tuple(replace(op, label=label) for op in operations)
        for name, operations in made.sections.items()
    }
    labelled = replace(made, sections=sections, facts={"model": label})
    lines = generate(labelled, 2).source.splitlines()

    def code(text: list[str]) -> list[str]:
        return [line for line in text if not line.lstrip().startswith("//")]

    assert code(lines) == code(plain.splitlines())


def test_only_the_newest_row_is_on_the_path() -> None:
    older = [
        lambda row: replace(row, moves=(Move("seq", 5, 1, 4),)),
        lambda row: replace(row, offset=5),
        lambda row: replace(row, offset=1),  # its last number is the next row's first
        lambda row: replace(row, moves=()),
    ]
    for change in older:
        layers = Layers(5)
        row = change(replace(layers.row, strides=(1,)))
        layers.step.append(layers.curve(5, row, out=View(OUTPUT, 0, (1,))))
        with pytest.raises(TranslateError, match="reads older rows: only split models"):
            generate(layers.program(5), 2)
    whole = program(checked(MODELS["mlp"]()), "whole")
    assert whole is not None
    with pytest.raises(TranslateError, match="reads older rows"):
        generate(whole, 2)


def test_a_step_leaves_nothing_in_a_state() -> None:
    """It may use a part of one as its own; what it changes for later is an advance's."""
    for reads_first in (False, True):
        layers = Layers(5)
        row = replace(layers.row, strides=(1,))
        name = layers.buffer(8, "state")
        own, out = View(name, 3, (1,)), View(OUTPUT, 0, (1,))
        write, read = layers.curve(5, row, out=own), layers.curve(5, own, out=out)
        layers.step += [read, write] if reads_first else [write, read]
        layers.advance.append(layers.curve(3, row, out=View(name, 0, (1,))))
        if reads_first:
            with pytest.raises(TranslateError, match=f"changes the state '{name}' for later"):
                generate(layers.program(5), 2)
        else:
            generate(layers.program(5), 2)
            layers.advance.append(layers.curve(5, own, out=View(layers.buffer(5), 0, (1,))))
            with pytest.raises(TranslateError, match="for later"):
                generate(layers.program(5), 2)


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    made = program(checked(zoo.mlp(4, 33, 601)), "pre")
    assert made is not None
    needs = r"on 1 multiprocessors it needs \d{7} bytes of shared memory on each; 231424 are there"
    with pytest.raises(TranslateError, match=needs):
        generate(made, 1)


def test_a_program_without_outputs() -> None:
    layers = Layers(5)
    layers.step.append(layers.curve(5, replace(layers.row, strides=(1,))))
    with pytest.raises(TranslateError, match="writes no output"):
        generate(layers.program(5), 2)


def test_states_that_turn_with_the_row_are_loaded_for_the_next() -> None:
    made = program(checked(MODELS["lstm-1"]()), "bank")
    assert made is not None
    plan = schedule(made, 2, 64, False)
    turns = {move for _, view, _ in plan.loads for move in view.moves}
    period = made.window - 1
    assert {(m.index, m.shift, m.period) for m in turns} == {("seq", 0, period)}
    source = generate(made, 2).source
    assert f"turn_1_{period} = (int)((seq + 1) % {period})" in source  # behind an advance
    assert f"turn_0_{period} = (int)((seq + 0) % {period})" in source  # and for a first row


def test_a_row_number_that_goes_back_turns_forward() -> None:
    """C's remainder of a negative number is negative; Python's is not."""
    assert turn(Move("seq", 3, -2, 5)) == ("turn_3_5", 3, 5)
    assert turn(Move("seq", 3, 7, 5)) == ("turn_2_5", 2, 5)
    assert turn(Move("seq", 0, 7, 0)) is None  # it does not move anything
    assert turn(Move("i", 3, 1, 5)) is None


COMPILED = ["lstm", "gru", "tcn", "transformer", "mlp", "deeplob"]


@pytest.mark.skipif(not compiler()[0], reason="no nvcc on the path")
@pytest.mark.parametrize("name", COMPILED)
def test_nvcc_takes_it_and_no_register_spills(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_, "cache_folder", lambda part: tmp_path / part)
    made = program(checked(MODELS[name]()), "pre")
    assert made is not None
    built = build(made, one_poller=name == "gru", profile=name == "tcn")
    assert built.cubin.startswith(b"\x7fELF")
    cubin, spilled = compile_.compile_source(built.kernel.source, profile=built.profiled)
    assert (cubin, spilled) == (built.cubin, 0)
    (kept,) = (tmp_path / "resident").glob("*.cubin")
    assert kept.read_bytes() == cubin


@pytest.mark.skipif(not compiler()[0], reason="no nvcc on the path")
def test_what_nvcc_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_, "cache_folder", lambda part: tmp_path / part)
    with pytest.raises(BuildError, match=r"nvcc 1\d\.\d.* refuses a generated kernel: .*nonsense"):
        compile_.compile_source("int main() { return nonsense; }")
    assert not list((tmp_path).rglob("*.cubin"))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_, "compiler", lambda: ("", ""))
    with pytest.raises(BuildError, match="no nvcc on the path: install the CUDA toolkit"):
        compile_.compile_source("")
