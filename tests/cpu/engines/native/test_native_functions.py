"""exp, log, tanh, sigmoid and erf over all of float32: within three units in the last place."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest

from helpers.native_bench import Bench, compiled
from tickrt.program import Instruction, Map

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

ULPS = 3.0
TRUTH = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1.0) / (1.0 + np.exp(-np.abs(x))),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}
SMALLEST = np.float64(np.finfo(np.float32).tiny)


def every(step: int) -> np.ndarray:
    """Float32 of every exponent and sign, and what is special."""
    bits = np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38], np.float32)
    return np.concatenate([special, bits.view(np.float32)])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By function: arguments and results."""
    b, x = Bench(0), every(40_009)
    views, count = {}, len(x)
    for function in TRUTH:
        views[function] = (b.over(x, (1,)), b.out((count,)))
        body = (Instruction("load", (0,)), Instruction(function, (0,)))
        source, target = views[function]
        b.step.append(Map((count,), (source,), body, (target,), (1,), function))
    ring = np.zeros((6, 4), np.float32)
    engine = compiled(b.program(), tmp_path_factory.mktemp("native")).engine(ring.ctypes.data)
    engine.submit(3)
    found = {}
    for function, (_, target) in views.items():
        whole = engine.states()[target.buffer]
        end = target.offset + target.strides[0] * count
        found[function] = (x, whole[target.offset : end : target.strides[0]])
    return found


@pytest.mark.parametrize("function", TRUTH)
def test_error_is_a_few_units_in_the_last_place(
    function: str, results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    x, got = results[function]
    with np.errstate(all="ignore"):
        want = TRUTH[function](x.astype(np.float64))
        rounded = want.astype(np.float32)
        usual = np.isfinite(rounded) & (np.abs(want) >= SMALLEST)
        unit = np.spacing(np.abs(rounded[usual])).astype(np.float64)
        errors = np.abs(got[usual].astype(np.float64) - want[usual]) / unit
    worst = int(errors.argmax())
    assert errors[worst] <= ULPS, f"{function}({x[usual][worst]})"
    tiny = np.isfinite(rounded) & ~usual
    assert np.all(np.abs(got[tiny] - want[tiny]) <= SMALLEST)


@pytest.mark.parametrize("function", TRUTH)
def test_nan_and_infinities_go_through(
    function: str, results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    x, got = results[function]
    with np.errstate(all="ignore"):
        rounded = TRUTH[function](x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(rounded))
    special = ~np.isfinite(x)
    np.testing.assert_array_equal(got[special], rounded[special])
