"""Every operator that has a rule gives what ONNX Runtime gives, before and after the optimiser."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from helpers.one_node import Case, answers, model_of, program_of, run_program
from helpers.operator_cases import CASES, SPECIAL
from tickrt.engines.translate import RULES

# Tested in chains, as they make integers or truth values: test_chains.py.
IN_CHAINS = {"And", "Or", "Not", "Xor", "QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
IN_CHAINS |= {"DynamicQuantizeLinear", "MatMulInteger"}


def test_every_rule_has_a_case() -> None:
    tested = Counter(case.op for case in CASES)
    assert set(tested) | IN_CHAINS == set(RULES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_onnx_runtime(case: Case) -> None:
    expected = np.concatenate([a.ravel() for a in answers(case)])
    model, feeds = model_of(case)
    plain, small = (run_program(program_of(model, feeds, small=s), feeds, 2) for s in (False, True))
    np.testing.assert_allclose(small, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(plain, small)


@pytest.mark.parametrize("case", SPECIAL, ids=str)
def test_what_is_no_number_stays_none(case: Case) -> None:
    expected = np.concatenate([a.ravel() for a in answers(case)])
    model, feeds = model_of(case)
    np.testing.assert_allclose(
        run_program(program_of(model, feeds, small=True), feeds), expected, rtol=2e-5, atol=2e-6
    )
