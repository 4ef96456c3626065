"""Generated kernels give what their programs say: compiled for this CPU, run in chance's order."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.cuda_on_cpu import Stuck, compile_kernel
from helpers.kernel_programs import Layers, expected, kernel_program
from helpers.programs import MODELS, checked, program, rows_for
from tickrt.compile.codes import ANSWER_REFUSED, EMPTY_WORD, MAIL_ANSWER, MAIL_RESET
from tickrt.engines.resident.kernel import Kernel, generate
from tickrt.engines.resident.schedule import Stage, schedule
from tickrt.models.architectures import zoo
from tickrt.program import Instruction, Map, StreamProgram, View
from tickrt.program.ir import FUNCTIONS, OUTPUT

LIMIT = 1e-5


def wrong(
    made: StreamProgram,
    kernel: Kernel,
    folder: Path,
    rows: np.ndarray,
    *,
    flags: list[int] | None = None,
    seeds: int = 1,
    ahead: int = 1,
) -> float:
    """The largest difference from the program's reference; of unequal NaN: infinite."""
    running = compile_kernel(kernel, made, folder)
    outputs, answered = expected(made, rows, flags)
    worst = 0.0
    for seed in range(seeds):
        found, numbers = running.run(rows, flags=flags, seed=seed, ahead=ahead)
        for i, number in enumerate(numbers):
            wanted = flags is None or flags[i] & MAIL_ANSWER
            refused = 0 if answered[i] else ANSWER_REFUSED
            assert number == ((i + 1) | refused if wanted else EMPTY_WORD)
        got, right = found[answered], outputs[answered]
        same = (got == right) | (np.isnan(got) & np.isnan(right))
        got, right = got[~same], right[~same]
        if not np.isfinite([got, right]).all():
            return float("inf")
        error = np.abs(got - right) / np.maximum(1.0, np.abs(right))
        worst = max(worst, float(error.max(initial=0.0)))
    return worst


def some(made: StreamProgram, count: int = 9, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, made.width)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "mode", "blocks", "one_poller"),
    [
        ("lstm", "bank", 2, False),
        ("lstm", "pre", 4, True),
        ("lstm", "carry", 1, True),
        ("gru-2", "bank", 2, True),
        ("rnn-3", "pre", 1, False),
        ("tcn", "pre", 2, False),
        ("mlp", "pre", 3, True),
        ("transformer", "pre", 2, False),
        ("deeplob", "pre", 2, False),
        ("spatiotemporal", "pre", 2, True),
    ],
)
def test_models(name: str, mode: str, blocks: int, one_poller: bool, tmp_path: Path) -> None:
    model = checked(MODELS[name]())
    made = program(model, mode)
    assert made is not None
    kernel = generate(made, blocks, one_poller=one_poller)
    assert wrong(made, kernel, tmp_path, rows_for(model, model.window + 8)) < LIMIT


@pytest.mark.parametrize(
    ("make", "mode", "blocks", "registers", "what"),
    [
        # Units that the blocks do not share evenly, inputs that the segments do not.
        (lambda: zoo.recurrent("LSTM", 1, 101, 6, 45), "bank", 4, 64, "shared"),
        # Weights in shared memory, where there are no registers left.
        (lambda: zoo.recurrent("LSTM", 2, 70, 4, 61), "bank", 3, 8, "shared everywhere pool"),
        (lambda: zoo.mlp(5, 130, 300), "pre", 4, 64, "shared everywhere"),
        # More than 512 outputs of a block: a warp has several groups of 32.
        (lambda: zoo.mlp(2, 9, 530), "pre", 16, 40, "many"),
        # Many rows by a matrix of which each block has its columns.
        (lambda: zoo.recurrent("LSTM", 2, 16, 14, 8), "bank", 2, 64, "columns"),
        (lambda: zoo.transformer(1, causal=False, width=24, heads=3, window=9), "pre", 2, 64, ""),
    ],
)
def test_shapes(
    make: object, mode: str, blocks: int, registers: int, what: str, tmp_path: Path
) -> None:
    model = checked(make())  # type: ignore[operator]
    made = program(model, mode)
    assert made is not None
    stages = [s for s in schedule(made, blocks, registers, False).step if isinstance(s, Stage)]
    kernel = generate(made, blocks, registers)
    found = {
        "shared": any(s.shared for s in stages),
        "everywhere": any(s.everywhere for s in stages),
        "many": any(not s.shared and s.units > 512 for s in stages),
        "pool": "pool[" in kernel.source.split("while (true)")[0],
        "columns": "&rows[" in kernel.source,
    }
    assert all(found[each] for each in what.split())
    assert wrong(made, kernel, tmp_path, rows_for(model, model.window + 4)) < LIMIT


@pytest.mark.parametrize("seed", [*range(12)])
def test_programs_by_chance(seed: int, tmp_path: Path) -> None:
    """With resets, rows that are not asked about, and rows that come before the last is taken."""
    made = kernel_program(seed)
    kernel = generate(made, 1 + seed % 3, (64, 8)[seed % 2], bool(seed % 2))
    flags = [MAIL_ANSWER] * 6 + [0, MAIL_ANSWER, MAIL_RESET | MAIL_ANSWER]
    flags += [MAIL_ANSWER] * 4 + [MAIL_RESET] + [MAIL_ANSWER] * 5
    rows = some(made, len(flags), seed)
    assert (
        wrong(made, kernel, tmp_path, rows, flags=flags, seeds=2, ahead=1 + seed % 4) < 10 * LIMIT
    )


def test_every_function_of_every_kind_of_number(tmp_path: Path) -> None:
    """Each function of the newest row's numbers, infinite ones and NaN among them."""
    names = sorted(set(FUNCTIONS) - {"load", "value"})
    layers, n = Layers(6), 6
    for i, name in enumerate(names):
        loads = [View("rows", j, (0,), layers.row.moves) for j in (1, 2)]
        inputs = (replace(layers.row, strides=(1,)), *loads)
        lines = tuple(Instruction("load", (j,)) for j in range(3))
        arguments = (0, 1, 2)[: FUNCTIONS[name]]
        lines += (Instruction(name, arguments), Instruction("value", (-1.5,)))
        lines += (Instruction("neg", (4,)),)  # a negative literal behind a sign
        out, more = View(OUTPUT, n * i, (1,)), View(OUTPUT, n * (len(names) + i), (1,))
        layers.step.append(Map((n,), inputs, lines, (out, more), (3, 5), f"by {name}"))
    made = layers.program(2 * n * len(names))
    rows = some(made, 12)
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    rows[3:] *= 20.0
    rows[4, :4] = [0.5, 1.5, 2.5, -0.5]  # to even
    rows[5] = [inf, 2.0, 0.0, -inf, nan, 0.0]
    rows[6] = [1.0, nan, -0.0, 0.0, -inf, nan]
    rows[7] = [0.1, -inf, 1.0, 0.01, -0.14, 0.142]
    assert wrong(made, generate(made, 1), tmp_path, rows) < LIMIT


def test_products_that_no_block_waits_for(tmp_path: Path) -> None:
    """A shared product that only the first block needs, and at once a shared one that all need: a
    block that waits for nothing must keep its sums until it has sent them."""
    layers = Layers(160)
    first, second = (layers.product(n, 160, layers.row) for n in (224, 192))
    one, two = layers.curve(224, first.output), layers.curve(192, second.output)
    third = layers.product(128, 192, View(two.outputs[0].buffer, 0, (0, 1)))
    three = layers.curve(128, third.output)
    layers.step += [first, one, second, two, third, three]
    last = (three.outputs[0], one.outputs[0])
    layers.step.append(layers.curve(128, *last, out=View(OUTPUT, 0, (1,))))
    made = layers.program(128)
    plan = schedule(made, 2, 64, False)
    stages = [(s.shared, s.everywhere) for s in plan.step if isinstance(s, Stage)]
    assert stages == [(True, False), (True, True), (True, False)]
    assert wrong(made, generate(made, 2), tmp_path, some(made, 6), seeds=4) < LIMIT


def test_products_of_a_row_that_an_advance_makes_again(tmp_path: Path) -> None:
    """Two in a row, which share the place of their partial sums."""
    layers = Layers(96)
    made_again, states = [], []
    for n in (64, 80, 33):
        step = layers.product(n, 96, layers.row)
        layers.step += [step, layers.curve(n, step.output)]
        state = View(layers.buffer(n, "state"), 0, (1,))
        made_again.append(replace(step, output=state, start=None))
        states.append((layers.step[-1].outputs[0], state))  # type: ignore[union-attr]
    layers.advance += made_again
    for i, (value, state) in enumerate(states):
        layers.step.append(layers.curve(33, value, state, out=View(OUTPUT, 33 * i, (1,))))
    made = layers.program(99)
    kernel = generate(made, 2)
    assert len(re.findall(r"80 sums of 96", kernel.source)) == 2
    assert wrong(made, kernel, tmp_path, some(made, 6), seeds=4) < LIMIT


@pytest.mark.parametrize("blocks", [1, 2])
def test_products_into_one_buffer(blocks: int, tmp_path: Path) -> None:
    """Two products side by side, as a Concat leaves them: each element is its own product's."""
    layers = Layers(160)
    both = layers.buffer(224)
    parts = [View(both, at, (1,)) for at in (0, 112)]
    layers.step += [layers.product(112, 160, layers.row, out=part) for part in parts]
    layers.step.append(layers.curve(112, *parts, out=View(OUTPUT, 0, (1,))))
    made = layers.program(112)
    assert wrong(made, generate(made, blocks), tmp_path, some(made, 4)) < LIMIT


def test_states_are_there_for_the_first_row_and_after_a_reset(tmp_path: Path) -> None:
    """A program that needs no rows before the first one starts from its states' values."""
    layers = Layers(5)
    state = View(layers.buffer(5, "state"), 0, (1,))
    row = replace(layers.row, strides=(1,))
    layers.step.append(layers.curve(5, row, state, out=View(OUTPUT, 0, (1,))))
    kept = layers.curve(5, row, state)
    layers.advance += [kept, layers.curve(5, kept.outputs[0], out=state)]
    made = layers.program(5)
    flags = [MAIL_ANSWER] * 3 + [MAIL_ANSWER | MAIL_RESET] + [MAIL_ANSWER] * 2
    assert wrong(made, generate(made, 2), tmp_path, some(made, 6), flags=flags) < LIMIT


@pytest.mark.parametrize("first", [1, 2**30 - 3, 2**31 - 3, 2**33 - 1])
def test_row_numbers_of_any_size(first: int, tmp_path: Path) -> None:
    """A ring of states turns with the row's number, whatever its size."""
    model = checked(MODELS["lstm-1"]())
    made = program(model, "bank")
    assert made is not None
    rows = rows_for(model, model.window + 6)
    running = compile_kernel(generate(made, 2), made, tmp_path)
    found, numbers = running.run(rows, first=first)
    outputs, answered = expected(made, rows)
    for i, number in enumerate(numbers):
        refused = 0 if answered[i] else ANSWER_REFUSED
        assert number == ((first + i) & 0x3FFFFFFF) | refused
    np.testing.assert_allclose(found[answered], outputs[answered], atol=LIMIT)


@pytest.mark.parametrize(
    ("pattern", "which"),
    [
        (r"^ *cluster_sync\(\);$", 5),
        (r"^ *__syncthreads\(\);$", 3),
        (r"^ *arrival_wait\([^;]*;$", 0),
    ],
)
def test_a_barrier_that_is_missing_shows(pattern: str, which: int, tmp_path: Path) -> None:
    """The order of chance is worth something: without a barrier the same kernel is wrong, or it
    ends in a deadlock."""
    made = program(checked(zoo.recurrent("LSTM", 2, 70, 6, 61)), "bank")
    assert made is not None
    kernel = generate(made, 2)
    rows = some(made, 9)
    assert wrong(made, kernel, tmp_path, rows) < LIMIT
    found = list(re.finditer(pattern, kernel.source, re.MULTILINE))
    place = found[which]
    source = kernel.source[: place.start()] + kernel.source[place.end() :]
    try:
        worst = wrong(made, replace(kernel, source=source), tmp_path, rows, seeds=3)
    except Stuck:
        worst = float("inf")
    assert worst > 100 * LIMIT


@pytest.mark.parametrize("mode", ["bank", "pre"])
def test_many_rows_of_nan_are_over_when_they_have_left_the_window(
    mode: str, tmp_path: Path
) -> None:
    model = checked(MODELS["lstm-1"]())
    made = program(model, mode)
    assert made is not None
    window, rows = model.window, rows_for(model, 4 * model.window)
    rows[window : 2 * window + 3] = np.nan
    running = compile_kernel(generate(made, 2), made, tmp_path)
    found, _ = running.run(rows)
    outputs, answered = expected(made, rows)
    assert np.isnan(found[window : 3 * window + 2]).all()
    assert np.isfinite(found[3 * window + 2 :]).all()
    np.testing.assert_allclose(found[answered], outputs[answered], atol=LIMIT)


@pytest.mark.xfail(raises=Stuck, strict=True, reason="blocks decide by themselves whether to stop")
@pytest.mark.parametrize(("one_poller", "words"), [(False, 30), (True, 1)])
def test_a_stop_that_meets_a_row_on_its_way(one_poller: bool, words: int, tmp_path: Path) -> None:
    """Every block takes the row, or none does: none waits for one that has gone."""
    made = program(checked(zoo.recurrent("LSTM", 1, 101, 4, 145)), "bank")
    assert made is not None
    running = compile_kernel(generate(made, 2, one_poller=one_poller), made, tmp_path)
    rows = some(made, 3)
    for seed in range(8):
        _, numbers = running.run(rows, seed=seed, stop_within=words)
        assert numbers in ([i | ANSWER_REFUSED for i in (1, 2, 3)[:n]] for n in (2, 3))
