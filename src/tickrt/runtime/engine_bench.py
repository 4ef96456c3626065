"""Engines timed as the loop calls them, side by side, with every answer checked.

Entry points: `Feed` (rows through one engine's handle, compiled), `Stream` (rows, and what ONNX
Runtime answers on the whole window of each), `side_by_side` (several runners by turns),
`percentiles`.

Invariants: all runners get the same rows, and as many turns, one after another, so that what the
machine does besides hits all of them. Every answer is compared; the first ones of a turn, which
find another engine's caches, and the turns without a gap are not among the latencies.

Limits: batch 1, one symbol, random rows; the caller's thread is left where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import ENGINE_N_OUTPUTS
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import OrtGraph
from tickrt.errors import Code, EngineError
from tickrt.interrupts import check
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.engine_bench_kernels import feed

__all__ = ["TURN", "UNCOUNTED", "Fed", "Feed", "Runner", "Stream", "percentiles", "side_by_side"]

TURN, UNCOUNTED = 50, 5  # rows of a turn; its first ones, which are no latencies
_PATIENCE_US = 3e7  # the reference backend needs seconds for a large window
_QUANTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
_ROWS = 1000

Floats = NDArray[np.float32]
Ticks = NDArray[np.int64]


def percentiles(ticks: Ticks) -> dict[str, float]:
    """p50, p99, p999 and max of clock ticks, in µs."""
    values = ticks / (1e3 * ticks_per_ns())
    return {name: round(float(np.percentile(values, q)), 3) for name, q in _QUANTILES.items()}


class Fed(NamedTuple):
    """What n rows came to."""

    answers: Ticks  # [n] from before `submit` to the answer read; 0: none was wanted
    advances: Ticks  # [n] of `advance`
    outputs: Floats  # [n, m]; NaN where no answer was wanted
    ticks: int  # of all the rows together


class Runner(Protocol):
    """What rows can be sent through."""

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """The next rows [n, F], one every `gap_us`. Raises EngineError."""
        ...

    def describe(self) -> dict[str, Any]:
        """What runs."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Feed:
    """An engine on a ring of rows of its own, called through its handle by compiled code.

    Args:
        window, width: T rows of F columns.
        make: the engine on that ring; may raise what a backend's `load` raises.
    """

    def __init__(self, window: int, width: int, make: Callable[[RowRing], Engine]) -> None:
        self._ring = np.zeros((2 * window, width), np.float32)
        self.engine = make(RowRing(self._ring.ctypes.data, window, width))
        self._table = self.engine.handle()
        self._sent, self._window = 0, window

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """The next rows [n, F]; no answer is wanted before the first complete window.

        Raises:
            EngineError: the engine failed, or gave no answer; says at which row.
        """
        rate = ticks_per_ns() * 1e3
        wanted = max(0, self._window - 1 - self._sent)
        settings = np.array([gap_us * rate, wanted, _PATIENCE_US * rate], np.int64)
        took = np.zeros((2, len(rows)), np.int64)
        outputs = np.full((len(rows), int(self._table[ENGINE_N_OUTPUTS])), np.nan, np.float32)
        code, done, ticks = feed(self._table, rows, self._ring, self._sent, settings, took, outputs)
        self._sent += int(done)
        if code != Code.OK:
            late = f"no answer within {_PATIENCE_US / 1e6:g} s"
            text = f"row {self._sent + 1}: {late if code == Code.PENDING else Code(code).name}"
            raise EngineError(": ".join(filter(None, (text, self.engine.error()))))
        return Fed(took[0], took[1], outputs, int(ticks))

    def describe(self) -> dict[str, Any]:
        """As the engine does."""
        return self.engine.describe()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class Stream:
    """Random rows that repeat without an end, and the model's answer to the window of each.

    Attributes:
        rows: float32 [n, F]; row n is row 0 again.
        expected: float32 [n, m]: ONNX Runtime on the whole window that ends with that row.
    """

    def __init__(self, model: LoopModel, seed: int = 0) -> None:
        """Raises ModelError, EngineError: ONNX Runtime cannot run the model."""
        window, count = model.window, max(_ROWS, 2 * model.window)
        self.window = window
        rng = np.random.default_rng(seed)
        self.rows = rng.standard_normal((count, model.width), np.float32)
        graph = OrtGraph(model.content)
        twice = np.concatenate([self.rows, self.rows])
        self.expected = np.empty((count, model.n_outputs), np.float32)
        for i in range(count):
            last = count + i + 1
            found = graph.run({model.input: twice[None, last - window : last]})
            self.expected[i] = found[model.output].ravel()

    def numbers(self, first: int, count: int) -> NDArray[np.int64]:
        """Where in `rows` and `expected` the rows number first … first + count - 1 stand."""
        return np.arange(first, first + count) % len(self.rows)


class _Score:
    """A runner, and what its turns came to."""

    def __init__(self, runner: Runner, stream: Stream, compared: bool) -> None:
        self._runner, self._stream, self._compared = runner, stream, compared
        self._sent = self._answers = self._not_finite = 0
        self._max_error: float | None = None
        self._took: list[Ticks] = []
        self._advances: list[Ticks] = []
        self._rate = [0, 0]  # rows and ticks back to back
        self.failed = ""

    def _run(self, count: int, gap_us: float) -> Fed:
        at = self._stream.numbers(self._sent, count)
        fed = self._runner.run(self._stream.rows[at], gap_us)
        complete = max(0, self._stream.window - 1 - self._sent)
        self._sent += count
        self._compare(fed.outputs[complete:], self._stream.expected[at][complete:])
        return fed

    def _compare(self, found: Floats, expected: Floats) -> None:
        self._answers += len(found)
        if not self._compared or not len(found):
            return
        finite = np.isfinite(found).all(axis=1)
        self._not_finite += int((~finite).sum())
        if finite.any():
            error = float(np.abs(found[finite] - expected[finite]).max())
            self._max_error = max(error, self._max_error or 0.0)

    def turn(self, gap_us: float, warm: bool = False) -> None:
        """Rows with a gap, then rows without; a failure ends it for good, and is kept."""
        if self.failed:
            return
        try:
            if warm:  # a complete window, compiled code, a clock that has risen
                self._run(2 * self._stream.window + TURN, 0.0)
                return
            fed = self._run(TURN, gap_us)
            self._took.append(fed.answers[UNCOUNTED:])
            self._advances.append(fed.advances[UNCOUNTED:])
            fed = self._run(TURN, 0.0)
            self._rate = [self._rate[0] + TURN, self._rate[1] + fed.ticks]
        except EngineError as error:
            self.failed = str(error)

    def facts(self) -> dict[str, Any]:
        """Plain data, as `side_by_side` says."""
        found: dict[str, Any] = {"failed": self.failed} if self.failed else {}
        found |= {"answers": self._answers, "counted": sum(map(len, self._took))}
        if self._took:
            found["on_path_us"] = percentiles(np.concatenate(self._took))
            found["advance_us"] = percentiles(np.concatenate(self._advances))
        rows, ticks = self._rate
        if rows:
            found["rows_per_second"] = round(rows * ticks_per_ns() * 1e9 / max(ticks, 1))
        if self._compared:
            parity = {"max_error": self._max_error, "not_finite": self._not_finite}
            found["parity"] = parity
        return found


def side_by_side(
    runners: Mapping[str, Runner],
    stream: Stream,
    *,
    seconds: float,
    gap_us: float,
    floors: Sequence[str] = (),
    report: Callable[[float, float], None] = lambda _done, _total: None,
) -> dict[str, dict[str, Any]]:
    """Send the same rows through every runner, by turns, at least one turn each.

    Args:
        runners: by name; fresh ones. They stay open.
        seconds: how long, per runner.
        gap_us: between two rows, in µs.
        floors: runners without a model, whose answers are not compared.
        report: is told what share is done: (seconds, of how many).

    Returns:
        by name, plain data: ``answers`` (of all rows sent), ``counted`` (latencies),
        ``on_path_us`` and ``advance_us`` (p50, p99, p999, max), ``rows_per_second`` (without
        gaps), ``parity`` (``max_error`` of finite answers against ONNX Runtime on whole windows,
        None where there is none; ``not_finite``: answers with a NaN or an infinity), and
        ``failed`` where the runner did: the rest is then what it did before.
    """
    scores = {name: _Score(r, stream, name not in floors) for name, r in runners.items()}
    for score in scores.values():
        score.turn(gap_us, warm=True)
    began, wanted = time.perf_counter(), seconds * len(runners)
    while True:
        for score in scores.values():
            score.turn(gap_us)
            check()
        passed = time.perf_counter() - began
        report(passed, wanted)
        if passed >= wanted or all(score.failed for score in scores.values()):
            return {name: score.facts() for name, score in scores.items()}
