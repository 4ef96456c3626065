"""The built engine beside the original ONNX in float32, on the same rows.

Entry points: `windows_of` (rows → windows), `run_all`, `chain`, `compare` (figures), `TOLERANCES`.

Figures: largest and mean absolute error over all outputs, share of rows with the same argmax, and
the Kullback-Leibler divergence (nats) of the outputs where they are distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tickrt.engines.bundle.manifest import Parity
from tickrt.engines.graph.interface import Array, Run
from tickrt.engines.graph.ort import OrtGraph
from tickrt.errors import EngineError, ModelError

__all__ = ["TOLERANCES", "chain", "chunk_of", "compare", "run_all", "windows_of"]

TOLERANCES: Final = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2, "fp8": 1e-1}
_EPSILON: Final = 1e-12
_CHUNK: Final = 32


def windows_of(rows: Array, window: int, limit: int) -> Array:
    """At most `limit` windows of consecutive rows, spread over all of them.

    Args:
        rows: float32 [n, F], n ≥ window.

    Returns:
        float32 [count, window, F].

    Raises:
        ModelError: too few rows.
    """
    if len(rows) < window:
        raise ModelError(f"{len(rows)} rows are fewer than one window of {window}")
    ends = np.linspace(window, len(rows), min(limit, len(rows) - window + 1)).astype(int)
    picked = np.stack([rows[end - window : end] for end in dict.fromkeys(ends.tolist())])
    return np.ascontiguousarray(picked, np.float32)


def run_all(run: Run, name: str, windows: Array, batch: int) -> dict[str, Array]:
    """Run windows in chunks of at most `batch`; outputs joined along the first axis."""
    parts: list[dict[str, Array]] = []
    for first in range(0, len(windows), batch):
        parts.append(run({name: np.ascontiguousarray(windows[first : first + batch])}))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def chunk_of(session: OrtGraph) -> int:
    """How many windows one call takes: the fixed batch of the graph, or a good number."""
    return session.batch if isinstance(session.batch, int) else _CHUNK


def chain(pre: Run | None, step: Run, window_input: str, known: str, newest: str) -> Run:
    """`step(newest, pre(known))` as one function of the window [batch, T, F]."""

    def run(feed: dict[str, Array]) -> dict[str, Array]:
        window = feed[window_input]
        states: dict[str, Array] = {}
        if pre is not None:
            states = pre({known: np.ascontiguousarray(window[:, :-1])})
        return step({newest: np.ascontiguousarray(window[:, -1:]), **states})

    return run


def _divergence(reference: Array, got: Array) -> Array | None:
    """KL(reference ‖ got) per row in nats, or None where they are not distributions."""
    for values in (reference, got):
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        if (flat < -1e-6).any() or (np.abs(flat.sum(axis=1) - 1) > 1e-2).any():
            return None
    p = np.clip(reference.reshape(-1, reference.shape[-1]).astype(np.float64), _EPSILON, None)
    q = np.clip(got.reshape(-1, got.shape[-1]).astype(np.float64), _EPSILON, None)
    return np.asarray(np.maximum((p * np.log(p / q)).sum(axis=1), 0.0))


def _round(value: float) -> float:
    """Four significant digits: enough to judge by, and stable."""
    return float(f"{value:.4g}")


def compare(
    reference: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerance: float,
    data: str,
    names: Sequence[str] | None = None,
) -> Parity:
    """Figures of `got` against `reference`.

    Args:
        reference: outputs of the original in float32, by name, rows first.
        got: the engine's.
        tolerance: largest absolute error that passes.
        data: what the rows were.
        names: the outputs to compare; None: those of `reference`.
    """
    largest = total = 0.0
    count = rows = agree = 0
    divergences: list[Array] = []
    for name in names or list(reference):
        want, have = reference[name], got[name]
        if want.shape != have.shape:
            raise EngineError(f"output {name!r}: shape {have.shape}, expected {want.shape}")
        if not np.isfinite(have).all():
            return Parity(
                status="failed",
                reason="outputs are not finite:",
                rows=len(want),
                data=data,
                tolerance=tolerance,
            )
        error = np.abs(want.astype(np.float64) - have.astype(np.float64))
        largest, total = max(largest, float(error.max())), total + float(error.sum())
        count += error.size
        flat_want, flat_have = (v.reshape(-1, v.shape[-1]) for v in (want, have))
        agree += int((flat_want.argmax(axis=1) == flat_have.argmax(axis=1)).sum())
        rows += len(flat_want)
        divergence = _divergence(want, have)
        if divergence is not None:
            divergences.append(divergence)
    passed = largest <= tolerance
    kl = np.concatenate(divergences) if divergences else None
    return Parity(
        status="passed" if passed else "failed",
        rows=rows,
        data=data,
        max_abs=_round(largest),
        mean_abs=_round(total / max(count, 1)),
        argmax_agreement=_round(agree / max(rows, 1)),
        kl_max=_round(float(kl.max())) if kl is not None else None,
        kl_mean=_round(float(kl.mean())) if kl is not None else None,
        tolerance=tolerance,
    )
