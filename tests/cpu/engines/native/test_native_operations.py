"""Every operation as C equals what it means in NumPy, for all shapes and strides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.native_bench import WIDTH, WINDOW, Bench, both, compiled
from tickrt.program import Contract, For, Instruction, Map, Move, Reduce, StreamProgram, View
from tickrt.program.ir import FUNCTIONS
from tickrt.program.reference import Reference

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

AT_ONCE = 24  # operations of one program: compiling costs more than running
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0, 0.5, -2.5]
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


def assert_equal(program: StreamProgram, folder: Path, error: float, wide: bool = True) -> None:
    """States are those of NumPy, gaps between their elements included."""
    got, want = both(program, folder, wide)
    assert got.keys() == want.keys()
    for name, value in got.items():
        np.testing.assert_array_equal(np.isnan(value), np.isnan(want[name]), name)
        scale = np.abs(want[name][np.isfinite(want[name])]).max(initial=1.0)  # of what is summed
        np.testing.assert_allclose(value, want[name], rtol=error, atol=error * scale, err_msg=name)


def contract(b: Bench) -> Contract:
    """Each loop is walked by one operand or both, each fold as well."""
    loops = b.sizes(int(b.rng.integers(0, 4)), 3000)
    folds = b.sizes(int(b.rng.integers(1, 3)), 600)
    axes = range(len(loops) + len(folds))
    walked: tuple[list[int], list[int]] = ([], [])
    for axis in axes:
        who = b.choice_of_operands()
        for operand in who:
            walked[operand].append(axis)
    kinds = [("constant", "state"), ("state", "constant"), ("state", "state")]
    kind_a, kind_b = kinds[int(b.rng.integers(len(kinds)))]
    start = None
    if b.chance(0.6):
        start = b.view(loops, [i for i in range(len(loops)) if b.chance(0.7)])
    sizes = (*loops, *folds)
    left, right = b.view(sizes, walked[0], kind_a), b.view(sizes, walked[1], kind_b)
    return Contract(loops, folds, left, right, b.out(loops), start, "sum of products")


class Contracts(Bench):
    def choice_of_operands(self) -> tuple[int, ...]:
        choices = [(0,), (1,), (0, 1)]
        return choices[int(self.rng.integers(3))]


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_contract(folder: Path, seed: int) -> None:
    b = Contracts(seed)
    b.step += [contract(b) for _ in range(AT_ONCE)]
    assert_equal(b.program(), folder, 2e-6, b.chance(0.6))


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_product_with_constant_matrix(folder: Path, seed: int) -> None:
    """As linear layers have it: panels, blocks of lanes, tiles of rows, chains of sums."""
    b = Bench(seed)
    for _ in range(12):
        (m, n), (k,) = b.sizes(2, 4000), b.sizes(1, 500)
        loops, turned = ((n,), False) if b.chance(0.5) else ((m, n), b.chance(0.5))
        rows = [0] if len(loops) == 2 else []
        x = b.view((*loops, k), [*rows, len(loops)])
        weights = b.view((*loops, k), [len(loops) - 1, len(loops)], "constant")
        start = b.view(loops, [len(loops) - 1]) if b.chance(0.5) else None
        pair = (weights, x) if turned else (x, weights)
        b.step.append(Contract(loops, (k,), *pair, b.out(loops), start, "linear"))
    assert_equal(b.program(), folder, 2e-6, b.chance(0.6))


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_reduce(folder: Path, seed: int) -> None:
    b = Bench(seed)
    for _ in range(AT_ONCE):
        loops = b.sizes(int(b.rng.integers(0, 3)), 1500)
        folds = b.sizes(int(b.rng.integers(1, 3)), 60)
        x = b.view((*loops, *folds), [i for i in range(len(loops) + len(folds)) if b.chance(0.9)])
        values = b.buffers[x.buffer].start
        assert values is not None
        if b.chance(0.3):
            values[b.rng.integers(len(values), size=2)] = np.nan
        kind = str(b.rng.choice(["sum", "max", "min", "prod"]))
        b.step.append(Reduce(loops, folds, kind, x, b.out(loops), "fold"))
    assert_equal(b.program(), folder, 5e-6)


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_map_of_every_function(folder: Path, seed: int) -> None:
    b = Bench(seed)
    for function, count in FUNCTIONS.items():
        if function in ("load", "value"):
            continue
        loops = b.sizes(int(b.rng.integers(1, 4)), 2000)
        inputs = [
            b.view(loops, [i for i in range(len(loops)) if b.chance(0.8)]) for _ in range(count)
        ]
        for view in inputs:
            values = b.buffers[view.buffer].start
            assert values is not None
            values *= np.float32(10.0 ** b.rng.integers(-3, 3))
            places = b.rng.integers(len(values), size=min(6, len(values)))
            values[places] = b.rng.choice(SPECIAL, len(places))
        body = tuple(Instruction("load", (i,)) for i in range(count))
        body += (Instruction(function, tuple(range(count))),)
        b.step.append(Map(loops, tuple(inputs), body, (b.out(loops),), (count,), function))
    got, want = both(b.program(), folder)
    labels = {op.outputs[0].buffer: op.label for op in b.step if isinstance(op, Map)}
    for name, label in labels.items():
        # NumPy's sigmoid, 0.5 + 0.5 tanh(x/2), has no more than 1e-16 near 0.
        np.testing.assert_allclose(got[name], want[name], rtol=4e-7, atol=2e-16, err_msg=label)


def test_map_writes_several_outputs_and_reads_what_it_writes(folder: Path) -> None:
    b = Bench(1)
    state = b.view((70,), [0])
    other = b.view((70,), [0])
    body = (
        Instruction("load", (0,)),
        Instruction("load", (1,)),
        Instruction("value", (float(np.float32(0.1)),)),
        Instruction("mul", (0, 2)),
        Instruction("add", (3, 1)),
        Instruction("value", (float("-inf"),)),
        Instruction("max", (4, 5)),
    )
    b.step.append(Map((70,), (state, other), body, (state, b.out((70,))), (6, 3), "in place"))
    assert_equal(b.program(), folder, 1e-7)


@pytest.mark.parametrize("seq", [3, 4, 5, 8])
def test_views_move_with_the_row_and_with_a_loop(folder: Path, seq: int) -> None:
    """A recurrence over positions, backwards, that starts where the row's number says."""
    b = Bench(2)
    x = b.view((5, 20), [0, 1])
    table = b.over(b.rng.standard_normal(4 * 20), (1,))
    slot = View(table.buffer, 0, (1,), (Move("seq", 20, 1, 4),))
    turn = View(x.buffer, x.offset + 4 * x.strides[0], x.strides[1:], (Move("i", -x.strides[0]),))
    target = b.over(np.zeros(5 * 20), (1,))
    there = View(target.buffer, 0, (1,), (Move("i", 20, 2, 5),))
    row = View("rows", 0, (0,), (Move("seq", WIDTH, 0, WINDOW),))
    add = (*(Instruction("load", (i,)) for i in range(3)), Instruction("add", (0, 1)))
    add += (Instruction("add", (3, 2)),)
    body = (Map((20,), (slot, turn, row), add, (slot, there), (4, 4), "turn"),)
    b.step.append(For("i", 5, body, "loop"))
    program = b.program()
    ring = b.rng.standard_normal((2 * WINDOW, WIDTH)).astype(np.float32)
    reference, engine = Reference(program), compiled(program, folder).engine(ring.ctypes.data)
    reference.memory["rows"][:] = ring.ravel()
    reference.count, reference.last = 2, seq - 1
    engine.submit(seq)
    reference.submit(seq, ring[seq % WINDOW])
    for name in (table.buffer, target.buffer):
        np.testing.assert_allclose(
            engine.states()[name], reference.memory[name], rtol=1e-6, atol=1e-6
        )
