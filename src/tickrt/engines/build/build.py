"""From an ONNX model to a bundle: split → precision → engine → parity → bundle.

Entry points: `build` (→ `Built`), `write_built`, `engine_parity`.

Invariants: the same request and rows give the same manifest and payloads wherever the builder is
deterministic (`builder.reproducible` says where it is not); times are in the report only. A failed
parity check fails the build unless the request allows it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tickrt import __version__
from tickrt.engines.build.lower import (
    BuiltEngine,
    Report,
    SplitGraphs,
    build_part,
    make_feeds,
    split_graphs,
)
from tickrt.engines.build.parity import (
    TOLERANCES,
    chunk_of,
    compare,
    run_all,
    windows_of,
)
from tickrt.engines.build.request import BuildRequest, choose_backend
from tickrt.engines.bundle.crypto import AesKey, SigningKey
from tickrt.engines.bundle.format import write_bundle
from tickrt.engines.bundle.machine import platform_name
from tickrt.engines.bundle.manifest import Builder, Calibration, EngineInfo, Manifest, Parity
from tickrt.engines.bundle.toolchain import EngineBuilder, EngineOpener
from tickrt.engines.graph.interface import Array, Run
from tickrt.engines.graph.load import load_onnx, model_facts, tensor_infos
from tickrt.engines.graph.ort import OrtGraph
from tickrt.engines.split.plan import bank_starts, split_facts
from tickrt.errors import BuildError, PrecisionError

__all__ = ["BANK", "SOURCE", "BuildRequest", "Built", "build", "write_built"]

SOURCE: Final = "source.onnx"
BANK: Final = "bank.f32"  # start values of `advance`, in the manifest's order and shapes
_PARITY_WINDOWS: Final = 256


@dataclass(frozen=True)
class Built:
    """A built bundle in memory, and what the build has to report beyond the manifest."""

    manifest: Manifest
    payloads: dict[str, bytes]
    report: dict[str, Any]


def _check(request: BuildRequest, chosen: EngineBuilder, rows: Array | None) -> None:
    if request.precision not in chosen.precisions:
        raise PrecisionError(
            f"--precision {request.precision}: the {chosen.library} backend cannot compute in it; "
            f"use {' or '.join(chosen.precisions)}, or another --backend"
        )
    if request.precision in ("int8", "fp8") and rows is None and request.stored is None:
        raise PrecisionError(
            f"--precision {request.precision} needs representative rows: --calibrate EVENTS.npz"
        )


def _windows(
    parts: SplitGraphs, rows: Array | None, source: str
) -> tuple[Array | None, Array | None, str]:
    """The rows, the windows of the parity check, and what they are."""
    if rows is not None:
        description = source or "rows given"
    else:
        width = tensor_infos(parts.source.graph.input)[0].shape[-1]
        if not isinstance(width, int) or not parts.window:
            return None, None, ""
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((parts.window + 63, width), np.float32)
        description = "random normal rows"
    if not parts.window:
        return rows, None, description
    return rows, windows_of(rows, parts.window, _PARITY_WINDOWS), description


def largest_batch(infos: Sequence[EngineInfo]) -> int:
    """How many windows every engine takes at once: the least upper bound of their profiles."""
    bounds = [profile[info.inputs[0].name][2][0] for info in infos for profile in info.profiles[:1]]
    return min(bounds, default=_PARITY_WINDOWS)


def engine_parity(
    parts: SplitGraphs,
    runs: Mapping[str, Run],
    windows: Array,
    tolerance: float,
    data: str,
    batch: int = _PARITY_WINDOWS,
) -> Parity:
    """Figures of the engines `runs` (by role) beside the original model on the same windows.

    Args:
        batch: how many windows the engines take at once, at most.
    """
    whole = OrtGraph(parts.source)
    size = min(chunk_of(whole), batch)
    runs = dict(runs)
    if "pre" in parts.models and "pre" not in runs:  # its builder has no use for one
        runs["pre"] = OrtGraph(parts.models["pre"]).run
    reference = run_all(whole.run, parts.window_input, windows, size)
    got = run_all(parts.chained(runs), parts.window_input, windows, size)
    return compare(reference, got, tolerance, data, whole.outputs)


def _parity(
    parts: SplitGraphs,
    engines: Sequence[BuiltEngine],
    builder: Builder,
    opener: EngineOpener,
    windows: Array | None,
    tolerance: float,
    data: str,
) -> tuple[Parity, dict[str, Any]]:
    """Parity of the engines, or of the lowered graphs where the engines cannot run here."""
    if windows is None:
        why = "the model leaves its time axis open: give --window and rows"
        return Parity(status="not run here", reason=why, tolerance=tolerance), {}
    why = opener.why_not_here(builder)
    if not why:
        runs: dict[str, Run] = {e.info.role: opener.runner(e.made.data) for e in engines}
        # `advance` is for one stream: it has no batch, and is not part of the comparison.
        batch = largest_batch([e.info for e in engines if e.info.role != "advance"])
        figures = engine_parity(parts, runs, windows, tolerance, data, batch)
        stand_in = next((e.made.stand_in for e in engines if e.made.stand_in), "")
        return figures.model_copy(update={"reason": figures.reason or stand_in}), {}
    # The engine cannot run here, but the graph that it was built from can.
    graphs: dict[str, Run] = {}
    for engine in engines:
        optimise = "fp8" not in engine.info.precision.values()
        if "bf16" in engine.info.precision.values():
            return Parity(status="not run here", reason=why, tolerance=tolerance), {}
        graphs[engine.info.role] = OrtGraph(engine.lowered, optimise).run
    figures = engine_parity(parts, graphs, windows, tolerance, data)
    gates = {"graph_parity": figures.model_dump(mode="json")}
    if figures.status == "failed":
        return figures.model_copy(update={"reason": f"of the graph ({why})"}), gates
    return Parity(status="not run here", reason=why, tolerance=tolerance), gates


def _refuse(request: BuildRequest, parity: Parity) -> None:
    if parity.status != "failed" or request.allow_failed_parity:
        return
    raise BuildError(
        f"{request.model}: parity failed: {parity.reason or 'largest error'} {parity.max_abs} > "
        f"{parity.tolerance} on {parity.rows} rows ({parity.data}), argmax agrees in "
        f"{(parity.argmax_agreement or 0.0):.1%}; hold more layers with --keep, use another "
        "precision or calibration, raise --tolerance, or accept it with --allow-failed-parity"
    )


def build(
    request: BuildRequest,
    rows: Array | None = None,
    rows_source: str = "",
    progress: Report | None = None,
) -> Built:
    """Build a bundle in memory.

    Args:
        request: what to build.
        rows: float32 [n, F], consecutive, as the model sees them: for calibration and parity.
            None: standard normal rows for the parity check, and no calibration.
        rows_source: what the rows are, for the manifest.
        progress: told of every phase; perhaps from another thread.

    Raises:
        ModelError: the model cannot be read, lowered or built; the message names the layer.
        BuildError: the parity check failed, and the request does not allow that.
    """
    started = time.perf_counter()
    model, sha256, source = load_onnx(request.model, request.content)
    chosen = choose_backend(request)
    targets = chosen.targets()
    _check(request, chosen, rows)
    parts = split_graphs(model, request, whole=chosen.splits)
    given = rows is not None
    rows, windows, data = _windows(parts, rows, rows_source)
    feeds: dict[str, Any] = {}
    if request.precision in ("int8", "fp8") and given and parts.window and rows is not None:
        feeds = make_feeds(parts, windows_of(rows, parts.window, request.samples))
    engines = []
    for role in _roles(parts, chosen):
        own = feeds.get(role, [])
        engines.append(build_part(role, parts, request, chosen, own, progress))
    if request.precision in ("int8", "fp8") and not any(e.calibration for e in engines):
        raise PrecisionError(
            f"--precision {request.precision}: no layer can be quantised (MatMul, Gemm or Conv "
            "with constant weights, not held by --keep); keep less, or use fp16"
        )
    builder = _builder(request, chosen, targets)
    if progress:
        progress("parity", "parity", 0, 1)
    tolerance = request.tolerance or TOLERANCES[request.precision]
    parity, gates = _parity(parts, engines, builder, chosen, windows, tolerance, data)
    _refuse(request, parity)
    manifest = Manifest(
        name=request.name or request.model.stem,
        tickrt=__version__,
        model=model_facts(model, sha256, request.model.stem),
        builder=builder,
        precision=request.precision,
        keep=request.fp32_layers if request.precision != "fp32" else (),
        engines=tuple(engine.info for engine in engines),
        calibration=_merge(engines),
        parity=parity,
        split=None if chosen.splits else _split_facts(parts, request),
        gates=gates,
    )
    payloads = _payloads(engines, parts, source if request.embed else b"")
    return Built(manifest, payloads, _report(manifest, engines, time.perf_counter() - started))


def _roles(parts: SplitGraphs, chosen: EngineBuilder) -> list[str]:
    """The graphs to build. A bank of states comes from `advance` alone; `pre` unrolls a window."""
    banked = parts.result is not None and bool(parts.result.bank)
    return [r for r in parts.models if not (r == "pre" and banked and chosen.skips_prefix)]


def _payloads(
    engines: Sequence[BuiltEngine], parts: SplitGraphs, source: bytes
) -> dict[str, bytes]:
    payloads = {engine.info.payload: engine.made.data for engine in engines}
    for engine in engines:
        payloads.update(engine.made.more)
    if parts.result is not None and parts.result.bank:
        payloads[BANK] = bank_starts(parts.result)
    if source:
        payloads[SOURCE] = source
    return payloads


def _merge(engines: Sequence[BuiltEngine]) -> Calibration | None:
    """One calibration of all parts; scales as ``role:tensor``."""
    calibrations = [(e.info.role, e.calibration) for e in engines if e.calibration is not None]
    if not calibrations:
        return None
    scales = {f"{role}:{name}": s for role, part in calibrations for name, s in part.scales.items()}
    return calibrations[0][1].model_copy(update={"scales": scales})


def _builder(request: BuildRequest, chosen: EngineBuilder, targets: tuple[str, ...]) -> Builder:
    options = {
        "level": request.level,
        "sparse": request.sparse,
        "refit": request.refit,
        "version_compatible": request.version_compatible,
        "workspace": request.workspace,
        "window": request.window,
        "profiles": list(request.profiles),
        "split": request.split,
        "stateful": request.stateful,
    }
    archs: list[str] = []
    for target in targets:
        archs.extend(("12.0", "12.1") if target == "12.x" else (target,))
    return Builder(
        backend=chosen.backend,
        library=chosen.library,
        version=chosen.version,
        gpu_arch=tuple(dict.fromkeys(archs)),
        driver=chosen.driver,
        platform=platform_name(),
        reproducible=chosen.reproducible,
        options={key: value for key, value in options.items() if value not in (None, False, [])},
    )


def _split_facts(parts: SplitGraphs, request: BuildRequest) -> dict[str, Any] | None:
    if parts.result is None:
        return {"split": False, "why_not": parts.why_not} if request.split else None
    return split_facts(parts.result)


def _report(manifest: Manifest, engines: Sequence[BuiltEngine], seconds: float) -> dict[str, Any]:
    """What the build says on the terminal and in its JSON."""
    rows = []
    for engine in engines:
        info, kinds = engine.info, list(engine.info.precision.values())
        rows.append(
            {
                "role": info.role,
                "format": info.format,
                "bytes": len(engine.made.data),
                "layers_before": info.layers_before,
                "layers_after": info.layers_after,
                "precision": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
                "seconds": round(engine.seconds, 3),
            }
        )
    return {
        "name": manifest.name,
        "backend": manifest.builder.library,
        "version": manifest.builder.version,
        "gpu_arch": list(manifest.builder.gpu_arch),
        "precision": manifest.precision,
        "engines": rows,
        "parity": manifest.parity.model_dump(mode="json"),
        "gates": manifest.gates,
        "reproducible": manifest.builder.reproducible,
        "seconds": round(seconds, 3),
        "warnings": [text for engine in engines for text in engine.made.warnings],
    }


def write_built(
    built: Built, path: Path, encrypt: AesKey | None = None, sign: SigningKey | None = None
) -> str:
    """Write what `build` made; returns the bundle's digest.

    Raises:
        BundleError: the file cannot be written.
    """
    manifest = built.manifest
    if encrypt is not None:
        reproducible = "no: every encryption has a fresh salt and nonces"
        builder = manifest.builder.model_copy(update={"reproducible": reproducible})
        manifest = manifest.model_copy(update={"builder": builder})
    return write_bundle(path, manifest, built.payloads, encrypt, sign)
