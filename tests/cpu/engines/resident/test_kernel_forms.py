"""Forms of operations in a kernel, each on a CPU: the matrix unit, vectors in lanes, folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.cuda_on_cpu import compile_kernel
from helpers.kernel_programs import Layers, expected
from tickrt.engines.resident.kernel import generate
from tickrt.program import Buffer, Contract, Instruction, Map, Reduce, StreamProgram, View
from tickrt.program.ir import OUTPUT

LIMIT = 1e-5


def copy(n: int, source: View, target: View) -> Map:
    return Map((n,), (source,), (Instruction("load", (0,)),), (target,), (0,), "copy")


def answers(made: StreamProgram, folder: Path, blocks: int, rows: np.ndarray) -> np.ndarray:
    """What the kernel gives for each row."""
    found, _ = compile_kernel(generate(made, blocks), made, folder).run(rows)
    return found


def rows_of(made: StreamProgram, count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, made.width)).astype(np.float32)


@pytest.mark.parametrize(("k", "start"), [(16, "constant"), (20, "state"), (140, "")])
def test_rows_of_any_size_keep_apart_on_the_matrix_unit(k: int, start: str, tmp_path: Path) -> None:
    """A row that is huge, tiny, infinite or NaN takes no digit from its neighbours."""
    m, n, blocks = 20, 32, 2
    layers = Layers(4)
    rng = np.random.default_rng(k)
    sizes = 10.0 ** rng.uniform(-30, 30, m)
    values = (rng.normal(size=(m, k)) * sizes[:, None]).astype(np.float32)
    values[3, 1], values[4, 0], values[5] = np.nan, np.inf, 0.0
    state = layers.buffer(m * k, "state")
    layers.buffers[state] = Buffer(state, m * k, "state", values.ravel())
    matrix, out = layers.buffer(n * k, "constant"), layers.buffer(m * n, "state")
    first = None
    if start:
        strides = (0, 1) if start == "constant" else (n, 1)
        first = View(layers.buffer(n if start == "constant" else m * n, start), 0, strides)
    a, b = View(state, 0, (k, 0, 1)), View(matrix, 0, (0, k, 1))
    layers.advance.append(Contract((m, n), (k,), a, b, View(out, 0, (n, 1)), first, "many"))
    layers.step.append(copy(m * n, View(out, 0, (1,)), View(OUTPUT, 0, (1,))))
    made = layers.program(m * n)
    assert "multiply(total" in generate(made, blocks).source
    rows = rows_of(made, 2)
    found = answers(made, tmp_path, blocks, rows)[1].reshape(m, n)
    weights = layers.buffers[matrix].start
    assert weights is not None
    exact = values.astype(np.float64) @ weights.astype(np.float64).reshape(n, k).T
    scale = np.abs(values).astype(np.float64) @ np.abs(weights).reshape(n, k).T
    if first is not None:
        added = layers.buffers[first.buffer].start
        assert added is not None
        exact = exact + added.reshape(-1, n)
        scale = scale + np.abs(added.reshape(-1, n))
    for row in range(m):
        if row in (3, 4):
            assert not np.isfinite(found[row]).any()
        else:
            assert (np.abs(found[row] - exact[row]) <= 1e-6 * scale[row] + 1e-37).all(), row


@pytest.mark.parametrize("n", [9, 33, 100, 128])
def test_a_vector_that_one_warp_has_in_its_lanes(n: int, tmp_path: Path) -> None:
    """A normalisation: mean, largest, scaled, and a product with the result."""
    layers = Layers(n)
    row = replace(layers.row, strides=(1,))
    curve = layers.curve(n, row)
    x = curve.outputs[0]
    mean, top = View(layers.buffer(1), 0, ()), View(layers.buffer(1), 0, ())
    whole = replace(x, strides=(1,))
    layers.step += [curve, Reduce((), (n,), "sum", whole, mean, "sum")]
    layers.step.append(Reduce((), (n,), "max", whole, top, "max"))
    each = [replace(view, strides=(0,)) for view in (mean, top)]
    scaled = layers.curve(n, x, *each, View(layers.buffer(n, "constant"), 0, (1,)))
    layers.step.append(scaled)
    matrix, out = View(layers.buffer(3 * n, "constant"), 0, (n, 1)), View(OUTPUT, 0, (1,))
    layers.step.append(
        Contract((3,), (n,), matrix, replace(scaled.outputs[0], strides=(0, 1)), out)
    )
    made = layers.program(3)
    source = generate(made, 1).source.split("while (true)")[1]
    assert "&& warp == 0" in source or "if (warp == 0)" in source
    rows = rows_of(made, 3)
    np.testing.assert_allclose(
        answers(made, tmp_path, 1, rows), expected(made, rows)[0], rtol=LIMIT, atol=LIMIT
    )


@pytest.mark.parametrize("kind", ["product", "max"])
def test_a_fold_over_inputs_that_lie_far_apart(kind: str, tmp_path: Path) -> None:
    """An attention's sum of values: 4 heads of 16, 24 places, a place every 64 numbers."""
    layers = Layers(96)
    state = layers.buffer(24 * 64, "state")
    values = View(state, 0, (16, 1, 64))
    out = View(OUTPUT, 0, (16, 1))
    if kind == "product":
        shares = replace(layers.row, strides=(24, 0, 1))
        layers.step.append(Contract((4, 16), (24,), shares, values, out))
    else:
        layers.step.append(Reduce((4, 16), (24,), "max", values, out))
    layers.step.append(copy(1, replace(layers.row, strides=(1,)), View(layers.buffer(1), 0, (1,))))
    made = layers.program(64)
    assert "const int o = tid % 64, part = tid / 64;" in generate(made, 2).source
    rows = rows_of(made, 3)
    np.testing.assert_allclose(
        answers(made, tmp_path, 2, rows), expected(made, rows)[0], rtol=LIMIT, atol=LIMIT
    )
