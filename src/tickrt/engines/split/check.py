"""Is the split exact, and what does it gain? Both are found by running it, in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tickrt.engines.graph.ort import open_session
from tickrt.engines.split.build import PARITY_LIMIT, SplitResult
from tickrt.engines.split.graph import Array
from tickrt.errors import SplitError

__all__ = ["PARITY_LIMIT", "Parity", "Timing", "measure", "random_rows", "verify"]

_CHUNK = 32


@dataclass(frozen=True)
class Parity:
    """Largest differences between `step(newest, pre(known))` and the whole model.

    `max_rel` is relative to the largest value of the same output in the same window, so that a
    logit near zero does not count as infinitely wrong. `advance_rel` is the same for outputs
    reached through `advance`; None where it was not run.
    """

    windows: int
    max_abs: float
    max_rel: float
    by_output: dict[str, float]
    advance_rel: float | None = None
    limit: float = PARITY_LIMIT

    @property
    def ok(self) -> bool:
        """True when every figure is finite and within the limit."""
        worst = max(self.max_rel, self.advance_rel or 0.0)
        return bool(np.isfinite(worst) and worst <= self.limit)


@dataclass(frozen=True)
class Timing:
    """Microseconds per call at batch 1, one thread. `advance` is None where there is none."""

    full: dict[str, float]
    step: dict[str, float]
    pre: dict[str, float]
    advance: dict[str, float] | None

    @property
    def off_path(self) -> str:
        """What to run after the order is out: ``advance`` where it is cheaper, else ``pre``."""
        return "advance" if self.advance and self.advance["p50"] < self.pre["p50"] else "pre"

    @property
    def ticks_per_second(self) -> dict[str, float]:
        """Highest sustainable row rate: whole window, `step` + `pre`, `step` + `advance`."""
        rates = {"full": 1e6 / self.full["p50"], "pre": 1e6 / (self.step["p50"] + self.pre["p50"])}
        if self.advance:
            rates["advance"] = 1e6 / (self.step["p50"] + self.advance["p50"])
        return rates


def random_rows(result: SplitResult, count: int, seed: int = 0) -> Array:
    """`count` rows of standard normal numbers, [count, *row_shape] of the model's type."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *result.row_shape)).astype(result.dtype)


def windows_of(result: SplitResult, rows: Array) -> Array:
    """Every window of consecutive `rows` [n, *row_shape], as a view [n−T+1, *input shape]."""
    rows = rows.reshape(len(rows), *result.row_shape).astype(result.dtype, copy=False)
    view = np.lib.stride_tricks.sliding_window_view(rows, result.window, axis=0)
    return np.moveaxis(view, -1, result.time_axis)


def _open_batch(model: onnx.ModelProto, name: str) -> bool:
    for entry in model.graph.input:
        if entry.name == name:
            return not entry.type.tensor_type.shape.dim[0].HasField("dim_value")
    raise SplitError(f"no input named {name!r}")


def verify(
    result: SplitResult, model: onnx.ModelProto, rows: Array, *, advance: bool = True
) -> Parity:
    """Compare the split with the whole model on every window of consecutive rows.

    Args:
        rows: [n, *row_shape], n ≥ T; real rows are better than random ones.
        advance: also go through the bank, row by row (as many windows again, at most 64).

    Raises:
        SplitError: the model was not split, or there are too few rows.
    """
    if result.step is None:
        raise SplitError(f"nothing to verify: {result.why_not}")
    if len(rows) < result.window:
        raise SplitError(f"{len(rows)} rows: a window needs {result.window}")
    windows = windows_of(result, rows)
    full, step = open_session(model), open_session(result.step)
    pre = open_session(result.pre) if result.pre else None
    chunk = _CHUNK if _open_batch(result.step, result.newest) else 1
    count, errors, largest = 0, dict.fromkeys(result.outputs, 0.0), 0.0
    known = slice(0, result.window - 1)
    for first in range(0, len(windows), chunk):
        part = np.ascontiguousarray(windows[first : first + chunk])
        expected = full.run(list(result.outputs), {result.input: part})
        states = _run(pre, {result.known: _cut(part, result.time_axis, known)}) if pre else {}
        newest = _cut(part, result.time_axis, slice(result.window - 1, None))
        got = _run(step, {result.newest: newest, **states})
        for name, want in zip(result.outputs, expected, strict=True):
            absolute, relative = _difference(got[name], want)
            largest = max(largest, absolute)
            errors[name] = max(errors[name], relative)
        count += len(part)
    bank = None
    if advance and result.bank:
        bank = _verify_bank(result, full, step, rows[: result.window + 63])
    worst = max(errors.values(), default=0.0)
    return Parity(count, largest, worst, errors, bank, result.parity_limit)


def _verify_bank(result: SplitResult, full: Any, step: Any, rows: Array) -> float:
    session = open_session(result.advance)
    bank = {entry.name: entry.start for entry in result.bank}
    states: dict[str, Array] = {}
    rows = rows.reshape(len(rows), *result.row_shape).astype(result.dtype, copy=False)
    windows, worst = windows_of(result, rows), 0.0
    for number, row in enumerate(rows):
        newest = np.expand_dims(row[np.newaxis], result.time_axis)
        if number >= result.window - 1:
            window = np.ascontiguousarray(windows[number - result.window + 1][np.newaxis])
            expected = full.run(list(result.outputs), {result.input: window})
            got = _run(step, {result.newest: newest, **states})
            pairs = zip(result.outputs, expected, strict=True)
            worst = max(worst, *(_difference(got[n], want)[1] for n, want in pairs))
        out = _run(session, {result.newest: newest, **bank})
        bank = {entry.name: out[entry.following] for entry in result.bank}
        states = {entry.state: out[entry.state] for entry in result.bank}
    return worst


def _cut(window: Array, axis: int, which: slice) -> Array:
    index = [slice(None)] * window.ndim
    index[axis] = which
    return np.ascontiguousarray(window[tuple(index)])


def _run(session: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    used = {entry.name for entry in session.get_inputs()}
    names = [entry.name for entry in session.get_outputs()]
    values = session.run(names, {k: v for k, v in feeds.items() if k in used})
    return dict(zip(names, values, strict=True))


def _difference(got: Array, want: Array) -> tuple[float, float]:
    """Largest absolute error, and largest error relative to each window's largest value."""
    if got.shape != want.shape:
        return np.inf, np.inf
    if not np.issubdtype(want.dtype, np.floating):
        wrong = float(np.any(got != want))
        return wrong, wrong
    if want.size == 0:
        return 0.0, 0.0
    if not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return np.inf, np.inf
    error = (
        np.abs(np.nan_to_num(got - want)).reshape(len(want), -1) if want.ndim else abs(got - want)
    )
    scale = np.abs(np.nan_to_num(want)).reshape(error.shape).max(axis=-1, keepdims=True)
    relative = error / np.maximum(scale, np.finfo(np.float32).tiny)
    return float(error.max()), float(relative.max())


def measure(
    result: SplitResult, model: onnx.ModelProto, *, seconds: float = 1.0, seed: int = 0
) -> Timing:
    """Time the whole model, `step`, `pre` and `advance` by turns, so that noise hits all alike.

    Args:
        seconds: about how long to measure in all; each graph runs at least 20 times.
    """
    if result.step is None:
        raise SplitError(f"nothing to measure: {result.why_not}")
    rows = random_rows(result, result.window, seed)
    window = np.ascontiguousarray(windows_of(result, rows))
    newest = _cut(window, result.time_axis, slice(result.window - 1, None))
    known = _cut(window, result.time_axis, slice(0, result.window - 1))
    calls = {"full": _Call(model, {result.input: window})}
    states: dict[str, Array] = {}
    if result.pre is not None:
        calls["pre"] = _Call(result.pre, {result.known: known})
        states = _run(calls["pre"].session, {result.known: known})
    calls["step"] = _Call(result.step, {result.newest: newest, **states})
    if result.bank:
        bank = {entry.name: entry.start for entry in result.bank}
        calls["advance"] = _Call(result.advance, {result.newest: newest, **bank})
    elif result.advance is not None:
        calls["advance"] = _Call(result.advance, {result.newest: newest, **states})
    for call in calls.values():
        call.repeat(5)
        call.times.clear()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(calls["full"].times) < 20:
        for call in calls.values():
            call.repeat(max(1, min(20, int(2e-3 / max(1e-6, call.last)))))
    figures = {name: call.figures() for name, call in calls.items()}
    nothing = {"p50": 0.0, "p99": 0.0, "n": 0.0}
    pre = figures.get("pre", nothing)
    return Timing(figures["full"], figures["step"], pre, figures.get("advance"))


class _Call:
    """One session with its inputs and outputs bound."""

    def __init__(self, model: onnx.ModelProto, feeds: dict[str, Array]) -> None:
        self.session = open_session(model)
        self.binding = self.session.io_binding()
        for entry in self.session.get_inputs():
            self.binding.bind_cpu_input(entry.name, feeds[entry.name])
        for entry in self.session.get_outputs():
            self.binding.bind_output(entry.name)
        self.times: list[int] = []
        self.last = 1e-3

    def repeat(self, count: int) -> None:
        run, clock = self.session.run_with_iobinding, time.perf_counter_ns
        for _ in range(count):
            start = clock()
            run(self.binding)
            self.times.append(clock() - start)
        self.last = self.times[-1] * 1e-9

    def figures(self) -> dict[str, float]:
        values = np.sort(np.array(self.times)) / 1e3
        return {
            "p50": float(values[len(values) // 2]),
            "p99": float(values[min(len(values) - 1, int(len(values) * 0.99))]),
            "n": float(len(values)),
        }
