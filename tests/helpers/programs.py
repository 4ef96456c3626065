"""Models as programs, in every way to run them, and what ONNX Runtime says of the same rows.

Entry points: `MODELS` (name → maker of a small model), `split_plan`, `program`, `windows`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from helpers import engine_zoo
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.graph.ort import open_session
from tickrt.engines.split import split
from tickrt.engines.split.plan import Mode, SplitPlan, bank_starts, split_facts
from tickrt.engines.translate import stream_program
from tickrt.models.architectures import zoo
from tickrt.program import StreamProgram

Array = np.ndarray[Any, Any]


def _fixed(make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """With the number of its rows written into it."""
    model = make()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = engine_zoo.T
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    **{name: lambda make=make: _fixed(make) for name, make in engine_zoo.ZOO.items()},  # type: ignore[misc]
    "lstm-1": lambda: zoo.recurrent("LSTM", 1, 6, 10, 4),
    "gru-2": lambda: zoo.recurrent("GRU", 2, 5, 7, 3),
    "rnn-3": lambda: zoo.recurrent("RNN", 3, 4, 5, 3),
    "lstm-2 rows": lambda: zoo.recurrent("LSTM", 2, 4, 2, 3),
}


def checked(model: onnx.ModelProto) -> LoopModel:
    return loop_model(model.SerializeToString(), "model")


def split_plan(model: LoopModel, mode: Mode) -> SplitPlan | None:
    """The split, to be run that way; None where it cannot be."""
    result = split(onnx.load_model_from_string(model.content), stateful=mode == "carry")
    if result.step is None or result.pre is None or (mode != "pre" and result.advance is None):
        return None
    advance = b"" if result.advance is None else result.advance.SerializeToString()
    return SplitPlan(
        mode,
        result.pre.SerializeToString(),
        result.step.SerializeToString(),
        advance,
        split_facts(result),
        bank_starts(result),
        {},
    )


def program(model: LoopModel, mode: str) -> StreamProgram | None:
    """The model's program; `mode` is that of a plan, or ``whole``."""
    if mode == "whole":
        return stream_program(model, None)
    plan = split_plan(model, mode)  # type: ignore[arg-type]
    return None if plan is None else stream_program(model, plan)


def rows_for(model: LoopModel, count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, model.width)).astype(np.float32)


def windows(model: LoopModel, rows: Array) -> Array:
    """ONNX Runtime's outputs for every window of consecutive rows: [count − T + 1, n]."""
    session = open_session(onnx.load_model_from_string(model.content))
    ends = range(model.window, len(rows) + 1)
    feeds = (rows[None, end - model.window : end] for end in ends)
    return np.stack([session.run(None, {model.input: feed})[0].ravel() for feed in feeds])


def carried(plan: SplitPlan, rows: Array, window: int) -> Array:
    """ONNX Runtime's outputs where states are carried on from row to row."""
    pre, step, advance = (
        open_session(onnx.load_model_from_string(g)) for g in (plan.pre, plan.step, plan.advance)
    )
    names = [name for name, _ in plan.states]
    known = {plan.known: rows[None, : window - 1]}
    states = dict(zip(names, pre.run(names, known), strict=True))
    outputs = []
    for row in rows[window - 1 :]:
        given = {n: v for n, v in {plan.newest: row[None, None], **states}.items()}
        outputs.append(step.run(None, _wanted(step, given))[0].ravel())
        following = advance.run([f"{n}_next" for n in names], _wanted(advance, given))
        states = dict(zip(names, following, strict=True))
    return np.stack(outputs)


def _wanted(session: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    return {i.name: feeds[i.name] for i in session.get_inputs()}
