"""What the loop runs of a bundle: the whole model or its split, as the loop's engines take them.

Entry point: `runnable`. The bundle was verified when it was opened (`compat.load_bundle`); each
payload's digest is verified here, on reading.

Invariants: whatever format the engines have, they are handed on; the backend says which it runs.
"""

from __future__ import annotations

from typing import Any

from tickrt.engines.build.build import BANK
from tickrt.engines.bundle.format import Bundle
from tickrt.engines.bundle.manifest import EngineInfo, Manifest
from tickrt.engines.graph.check import ONNX, LoopModel, loop_model
from tickrt.engines.split.plan import Mode, SplitPlan
from tickrt.errors import BundleError

__all__ = ["runnable"]


def _format(bundle: Bundle) -> str:
    """The one format of its engines."""
    formats = sorted({engine.format for engine in bundle.manifest.engines})
    if len(formats) != 1:
        raise BundleError(f"{bundle.path}: engines of {len(formats)} formats: {', '.join(formats)}")
    return formats[0]


def _interface(bundle: Bundle, first: EngineInfo, last: EngineInfo, content: bytes) -> LoopModel:
    """The model as the loop checks it, from the manifest alone: the original may not be in it.

    Args:
        first: the engine that reads the window, all of it but the newest row (`pre`), or that row.
        last: the engine that gives the outputs.
    """
    manifest = bundle.manifest
    split = manifest.split or {}
    reads = {info.name: info for info in first.inputs}
    source, output = reads.get(split.get("newest", ""), first.inputs[0]), last.outputs[0]
    sizes = source.shape[1:]
    if len(sizes) != 2 or not isinstance(sizes[0], int) or not isinstance(sizes[1], int):
        raise BundleError(f"{bundle.path}: the window of its `{first.role}` is not fixed")
    newest = 1 if first.role == "pre" else 0
    window = int(split["window"]) if first.role == "step" else sizes[0] + newest
    outputs = output.shape[-1]
    return LoopModel(
        name=manifest.name,
        content=content,
        sha256=manifest.model.sha256,
        input=str(split.get("input", source.name)),
        output=output.name,
        window=window,
        width=sizes[1],
        n_outputs=outputs if isinstance(outputs, int) else 3,
        metadata=_metadata(manifest),
        format=first.format,
    )


def _metadata(manifest: Manifest) -> dict[str, str]:
    model = manifest.model
    entries = {
        "tickrt.feature_hash": model.feature_hash,
        "tickrt.spec": model.spec,
        "tickrt.horizon_ns": None if model.horizon_ns is None else str(model.horizon_ns),
    }
    return {key: value for key, value in entries.items() if value is not None}


def runnable(bundle: Bundle) -> tuple[LoopModel, SplitPlan | None]:
    """The model's interface, and its split where the bundle has one.

    Args:
        bundle: opened by `compat.load_bundle`, with its key where it is encrypted.

    Returns:
        for a whole model, its engine in `LoopModel.content` (ONNX is checked), and None; for a
        split one, the plan, and an interface whose `content` is empty.

    Raises:
        BundleError, TamperedError: a payload is missing, damaged or cannot be decrypted, or its
            engines are no whole model, or of several formats.
        ModelError: the whole model does not fit the loop's contract.
    """
    engines: dict[str, EngineInfo] = {e.role: e for e in bundle.manifest.engines}
    format_ = _format(bundle)
    if "full" in engines:
        full = engines["full"]
        content = bundle.payload(full.payload)
        if format_ == ONNX:
            return loop_model(content, bundle.path), None
        return _interface(bundle, full, full, content), None
    manifest, facts = bundle.manifest, bundle.manifest.split or {}
    banked = bool(facts.get("bank")) and "advance" in engines
    if "step" not in engines or not ("pre" in engines or banked):
        raise BundleError(f"{bundle.path}: has no `pre` and `step`, and no whole model")
    stateful = bool(manifest.builder.options.get("stateful"))
    parity = manifest.parity.model_dump(mode="json")
    graphs: dict[str, Any] = {
        role: bundle.payload(engines[role].payload) if role in engines else b""
        for role in ("pre", "step", "advance")
    }
    starts = bundle.payload(BANK) if facts.get("bank") else b""
    mode: Mode = "carry" if stateful else "bank" if starts and graphs["advance"] else "pre"
    plan = SplitPlan(
        mode=mode,
        **graphs,
        facts=facts,
        starts=starts,
        figures={
            # Of probabilities: what is absolute is relative to 1.
            "parity": parity | {"max_rel": parity["max_abs"]},
            "rows_per_s": {},
            "state_bytes": facts["state_bytes"],
            "on_path_share": max(o["share_on_path"] for o in facts["outputs"]),
        },
    )
    first = engines.get("pre", engines["step"])
    return _interface(bundle, first, engines["step"], b""), plan
