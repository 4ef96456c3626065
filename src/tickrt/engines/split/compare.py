"""One model whole and split, side by side: parity, times, and what is left on the path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import onnx

from tickrt.engines.split.build import split
from tickrt.engines.split.check import measure, random_rows, verify
from tickrt.engines.split.graph import Array

__all__ = ["compare"]

_RANDOM_WINDOWS = 32


def compare(
    model: onnx.ModelProto,
    *,
    rows: Array | None = None,
    seconds: float = 2.0,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Split, verify and time a model.

    Args:
        rows: consecutive rows [n, *row_shape] for parity; default: random ones.
        seconds: how long to measure.
        around: made and entered around the measurement (a scheduling class, say).

    Returns:
        plain data: ``split``, ``why_not``; where it was split also ``parity``, ``times_us`` (p50
        and p99 of full, step, pre, advance), ``speedup`` (full by step, p50), ``off_path``,
        ``rows_per_second`` and the shares.
    """
    result = split(model)
    facts: dict[str, Any] = {
        "split": result.is_split,
        "why_not": result.why_not,
        "window": result.window,
        "not_split": [asdict(reason) for reason in result.reasons],
    }
    if not result.is_split:
        return facts
    real = rows is not None
    if rows is None:
        rows = random_rows(result, result.window + _RANDOM_WINDOWS - 1)
    parity = verify(result, model, rows)
    with around():
        timing = measure(result, model, seconds=seconds)
    times = {"full": timing.full, "step": timing.step, "pre": timing.pre}
    if timing.advance:
        times["advance"] = timing.advance
    return {
        **facts,
        "share_on_path": max(cost.share for cost in result.costs),
        "macs": [asdict(cost) for cost in result.costs],
        "state_bytes": result.state_bytes,
        "parity": {**asdict(parity), "ok": parity.ok, "real_rows": real},
        "times_us": times,
        "speedup": timing.full["p50"] / timing.step["p50"],
        "off_path": timing.off_path,
        "rows_per_second": timing.ticks_per_second,
    }
