"""Whole models as programs, in every mode, against ONNX Runtime on consecutive rows."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

from helpers.engine_zoo import Net
from helpers.programs import (
    MODELS,
    Array,
    carried,
    checked,
    program,
    rows_for,
    split_plan,
    windows,
)
from helpers.tensor_programs import Poisoned
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.translate import TranslateError, stream_program
from tickrt.models import find_model
from tickrt.models.architectures import zoo
from tickrt.program import StreamProgram, from_bytes, to_bytes

LIMIT = 2e-5
MODES = ("whole", "pre", "bank", "carry")
# Those whose states can be carried on: recurrent layers over the rows, and nothing before them.
RECURRENT = {"lstm", "gru", "lstm-1", "gru-2", "rnn-3", "lstm-2 rows"}


@cache
def model(name: str) -> LoopModel:
    return checked(MODELS[name]())


def outputs(engine: Poisoned, rows: Array, first: int, before: int) -> Array:
    """Of every row from number `before` on; each row is submitted twice."""
    found = []
    for seq, row in enumerate(rows, first):
        if seq - first >= before:
            found.append(engine.submit(seq, row))
            np.testing.assert_array_equal(engine.submit(seq, row), found[-1])
        engine.advance(seq, row)
    return np.stack(found)


def _program(name: str, mode: str) -> StreamProgram:
    made = program(model(name), mode)
    if made is None:
        if mode in ("bank", "carry"):
            assert name not in RECURRENT
        pytest.skip("the split has no such mode")
    return made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_equals_onnx_runtime_across_a_reset_and_a_gap(name: str, mode: str) -> None:
    made, source = from_bytes(to_bytes(_program(name, mode))), model(name)
    engine, before = Poisoned(made), source.window - 1
    shown = "pre" if mode == "bank" and before == 1 else mode
    assert (made.facts["mode"], made.warm) == (shown, before)
    for seed, first in enumerate((1, 1000, 12)):
        rows = rows_for(source, 2 * source.window + 3, seed)
        if mode == "carry":
            plan = split_plan(source, "carry")
            assert plan is not None
            expected = carried(plan, rows, source.window)
        else:
            expected = windows(source, rows)
        if first == 12:
            engine.reset()
        found = outputs(engine, rows, first, before)
        np.testing.assert_allclose(found, expected, rtol=LIMIT, atol=LIMIT / 10)


LARGE = {"lstm-m", "lstm-l", "lstm-seed"}  # the same graphs as others, only slower here


@pytest.mark.parametrize("name", [n for n in zoo.ZOO if n not in LARGE] + ["seed_lstm"])
def test_the_reference_models(name: str) -> None:
    """Their split as the loop would run it."""
    content = onnx.load(find_model(name).onnx) if name == "seed_lstm" else zoo.make(name)
    source = checked(content)
    made = program(source, "bank") or program(source, "pre")
    assert made is not None
    rows = rows_for(source, source.window + 3)
    found = outputs(Poisoned(made), rows, 1, source.window - 1)
    np.testing.assert_allclose(found, windows(source, rows), rtol=LIMIT, atol=LIMIT / 10)


def test_the_step_of_the_seed_model_is_two_cells_and_a_head() -> None:
    """What is on the path: the products with the newest row, and nothing that was known before."""
    source = checked(zoo.recurrent("LSTM", 2, 16, 10, 8))
    made = program(source, "bank")
    assert made is not None
    kinds = [type(op).__name__[0] for op in made.sections["step"]]
    assert "".join(kinds) == "CMCMCRMRM"
    assert "first" not in made.sections


def test_a_window_of_one_row() -> None:
    net = Net("one")
    x = net.op("Relu", net.linear(net.op("Reshape", "rows", net.ints(-1, 8)), 8, 4))
    source = checked(net.model(net.head(x, 4), ("batch", 1, 8)))
    made = stream_program(source, None)
    assert (made.warm, made.idle) == (0, 0)
    rows = rows_for(source, 4)
    found = outputs(Poisoned(made), rows, 5, 0)
    np.testing.assert_allclose(found, windows(source, rows), rtol=LIMIT)


def test_an_output_that_does_not_depend_on_the_rows() -> None:
    net = Net("constant")
    zeros = net.op("ConstantOfShape", net.op("Shape", net.last("rows")))
    source = checked(net.model(net.head(net.op("Cos", zeros), 8)))
    rows, made = rows_for(source, 9), stream_program(source, None)
    assert len(made.sections["step"]) == 1  # a copy of what is known
    found = outputs(Poisoned(made), rows, 1, 7)
    np.testing.assert_allclose(found, windows(source, rows), rtol=LIMIT)


def test_an_operator_without_a_rule_names_itself() -> None:
    net = Net("mod")
    x = net.op("Mod", net.last("rows"), net.const(np.float32(2)), fmod=1, name="my_mod")
    source = checked(net.model(net.head(x, 8)))
    with pytest.raises(TranslateError, match=r"operator Mod \('my_mod'\) has no rule"):
        stream_program(source, None)
