"""A model's graphs as a host runs them on one stream of rows (`host.kernels.stream`).

Entry points: `stream_facts`, `graphs_of`, `stream_parcel` (graphs that are in no bundle),
`bundled_stream` (those of a bundle), `parity_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tickrt.config import SessionConfig
from tickrt.engines.build.build import BANK
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import OrtGraph
from tickrt.engines.split.plan import SplitPlan
from tickrt.host.kernels.stream import BankEntry, StreamFacts
from tickrt.host.parcel import Parcel
from tickrt.runtime.backends.mailbox.parcel import bundle_parcel
from tickrt.runtime.model_source import Source

__all__ = ["bundled_stream", "graphs_of", "parity_rows", "stream_facts", "stream_parcel"]

Floats = NDArray[np.float32]
_PARITY_ROWS = 32  # answers that are compared when an engine is loaded


def _mode(plan: SplitPlan) -> str:
    """How the states come about: on a GPU a bank is cheaper than `pre` wherever there is one."""
    if plan.mode == "carry":
        return "carry"
    return "bank" if plan.advance and plan.starts else "pre"


def stream_facts(model: LoopModel, plan: SplitPlan | None) -> StreamFacts:
    """What a host has to know of a model that runs whole, or as `plan` says."""
    sizes = (model.window, model.width, model.n_outputs)
    if plan is None:
        return StreamFacts("whole", *sizes, model.input, "", model.output, {}, ())
    mode = _mode(plan)
    bank = plan.bank if mode == "bank" else ()
    return StreamFacts(
        mode,
        *sizes,
        plan.known,
        plan.newest,
        model.output,
        dict(plan.states),
        tuple(BankEntry(e.name, e.following, e.start.shape) for e in bank),
    )


def graphs_of(model: LoopModel, plan: SplitPlan | None, facts: StreamFacts) -> dict[str, bytes]:
    """The graphs that run, by role."""
    if plan is None:
        return {"full": model.content}
    return {role: bytes(getattr(plan, role)) for role in facts.roles}


def stream_parcel(
    source: Source,
    plan: SplitPlan | None,
    facts: StreamFacts,
    format_: str,
    engines: Mapping[str, bytes],
) -> Parcel:
    """Engines that are in no bundle, for a host.

    Args:
        engines: by role, in that format.
    """
    payloads: dict[str, bytes | memoryview] = {**engines}
    said = {"engines": {role: role for role in engines}, "stream": facts.to_dict()}
    if facts.bank and plan is not None:
        payloads[BANK] = plan.starts
    return Parcel(str(source.path), format_, payloads, {**said, "starts": BANK})


def bundled_stream(source: Source, settings: SessionConfig, facts: StreamFacts) -> Parcel:
    """A bundle's engines, for a host. Raises like `bundle_parcel`."""
    parcel = bundle_parcel(source, settings, [BANK] if facts.bank else [])
    said = {**parcel.facts, "stream": facts.to_dict(), "starts": BANK}
    return replace(parcel, facts=said)


def parity_rows(model: LoopModel) -> tuple[Floats, Floats]:
    """Random rows, and what ONNX Runtime answers to the whole window that ends with each.

    Args:
        model: ONNX.

    Returns:
        float32 [n, F] and [n, outputs], NaN before the first complete window.
    """
    window = model.window
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((window + _PARITY_ROWS - 1, model.width), np.float32)
    graph = OrtGraph(model.content)
    expected = np.full((len(rows), model.n_outputs), np.nan, np.float32)
    for last in range(window, len(rows) + 1):
        found = graph.run({model.input: rows[None, last - window : last]})
        expected[last - 1] = found[model.output].ravel()
    return rows, expected
