"""What the loop runs of a bundle: the whole model or its split, as the loop's engines take them.

Entry point: `runnable`. The bundle was verified when it was opened (`compat.load_bundle`); each
payload's digest is verified here, on reading.

Known limits: bundles whose engines are ONNX; plans are for the TensorRT backend.
"""

from __future__ import annotations

from typing import Any

from tickrt.engines.build.build import BANK
from tickrt.engines.bundle.format import Bundle
from tickrt.engines.bundle.manifest import EngineInfo, Manifest
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.split.plan import Mode, SplitPlan
from tickrt.errors import BundleError, IncompatibleError

__all__ = ["runnable"]


def _engines(bundle: Bundle) -> dict[str, EngineInfo]:
    engines: dict[str, EngineInfo] = {e.role: e for e in bundle.manifest.engines}
    for engine in engines.values():
        if engine.format != "onnx":
            raise IncompatibleError(
                f"{bundle.path}: its engines are {engine.format} plans; the onnxruntime backend "
                f"needs ONNX: tickrt build --rebuild {bundle.path} -o X.bundle "
                "--backend onnxruntime"
            )
    return engines


def _interface(bundle: Bundle, engines: dict[str, EngineInfo], content: bytes) -> LoopModel:
    """The model as the loop checks it, from the manifest alone: the original may not be in it."""
    manifest, facts = bundle.manifest, bundle.manifest.split or {}
    first = engines["pre"].inputs[0]
    window, width = first.shape[1], first.shape[2]
    if not isinstance(window, int) or not isinstance(width, int):
        raise BundleError(f"{bundle.path}: the window of its `pre` is not fixed")
    output = engines["step"].outputs[0]
    last = output.shape[-1]
    return LoopModel(
        name=manifest.name,
        content=content,
        sha256=manifest.model.sha256,
        input=str(facts["input"]),
        output=output.name,
        window=window + 1,
        width=width,
        n_outputs=last if isinstance(last, int) else 3,
        metadata=_metadata(manifest),
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
        for a whole model, its checked ONNX in `LoopModel.content`, and None; for a split one, the
        plan, and an interface whose `content` is empty.

    Raises:
        IncompatibleError: its engines are TensorRT plans.
        BundleError, TamperedError: a payload is missing, damaged or cannot be decrypted.
        ModelError: the whole model does not fit the loop's contract.
    """
    engines = _engines(bundle)
    if "full" in engines:
        return loop_model(bundle.payload(engines["full"].payload), bundle.path), None
    if "pre" not in engines or "step" not in engines:
        raise BundleError(f"{bundle.path}: has no `pre` and `step`, and no whole model")
    manifest, facts = bundle.manifest, bundle.manifest.split or {}
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
    return _interface(bundle, engines, b""), plan
