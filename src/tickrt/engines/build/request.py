"""What to build, and with what: the request, and the backend that follows from it.

Entry points: `BuildRequest`, `choose_backend`, `rebuild_request`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tickrt import backends
from tickrt.engines.bundle.manifest import Calibration, Manifest
from tickrt.engines.bundle.toolchain import EngineBuilder
from tickrt.engines.precision.convert import Precision
from tickrt.engines.precision.fp32_layers import DEFAULT_FP32_LAYERS
from tickrt.engines.precision.quantize import Method
from tickrt.errors import BuildError

__all__ = ["BuildRequest", "choose_backend", "rebuild_request"]


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

        request = tr.BuildRequest(Path("mine.onnx"), precision="fp16", tolerance=1e-2)
        tr.build(request, "mine16.bundle")

    Attributes:
        backend: ``auto``, or a name of `tickrt.backends`.
        targets: GPU architectures to build for ahead of time; empty: this machine's.
        fp32_layers: layers that stay in float32 (groups, operators, globs on names).
        method, samples: calibration of int8 and fp8.
        profiles: ``input=min:opt:max`` texts, one for each profile.
        workspace: bytes; None: by the model's kind.
        window: T, where the model leaves its time axis open.
        level: the builder's optimisation level, 0 to 5; None: its default.
        split: build `pre`, `step` (and `advance`) instead of the whole window.
        stateful: the model was trained with carried state.
        embed: keep the original ONNX in the bundle, so that it can be rebuilt.
        tolerance: largest absolute error of the outputs; None: by precision.
        allow_failed_parity: write the bundle all the same.
        stored: scales of an earlier build (``role:tensor``); then no rows are needed.
        content: the ONNX file, where it came out of a bundle and is in memory only.
        engine_python: the interpreter that has the builder's library; empty: ours.
    """

    model: Path
    name: str = ""
    backend: str = backends.AUTO
    targets: tuple[str, ...] = ()
    precision: Precision = "fp32"
    fp32_layers: tuple[str, ...] = DEFAULT_FP32_LAYERS
    method: Method = "minmax"
    samples: int = 256
    profiles: tuple[str, ...] = ()
    workspace: int | None = None
    window: int | None = None
    level: int | None = None
    sparse: bool = False
    refit: bool = False
    version_compatible: bool = False
    timing_cache: Path | None = None
    split: bool = True
    stateful: bool = False
    embed: bool = True
    tolerance: float | None = None
    allow_failed_parity: bool = False
    stored: Calibration | None = None
    content: bytes | None = field(default=None, repr=False)
    engine_python: str = ""


def choose_backend(request: BuildRequest) -> EngineBuilder:
    """What builds the request's engines.

    ``auto`` asks every backend in the order of `tickrt.backends.names`, and takes the first that
    can build here, for the targets named: a TensorRT where there is a GPU or a target, else ONNX
    Runtime, which every machine can run.

    An interpreter that is named leaves those that build there.

    Raises:
        BuildError: what the backend needs is not installed, or none can build for the targets.
        ConfigError: there is no such backend, or targets or the interpreter are out of place.
    """
    python = request.engine_python
    if request.backend != backends.AUTO:
        named: EngineBuilder = backends.builder(request.backend, request.targets, python)
        return named
    reasons = []
    for name in backends.names():
        if python and hasattr(backends.find(name), "under"):
            why = backends.under(name, python).probe(request.targets).builds
        elif python:
            continue
        else:
            why = backends.probe(name, request.targets).builds
        if not why:
            chosen: EngineBuilder = backends.builder(name, request.targets, python)
            return chosen
        reasons.append(f"{name}: {why}")
    raise BuildError(f"{request.model}: no backend can build it here: {'; '.join(reasons)}")


def rebuild_request(manifest: Manifest, source: Path, content: bytes | None = None) -> BuildRequest:
    """The request that builds this bundle's model again, from its ONNX at `source` or `content`.

    Backend and targets are left open: they are what changes.
    """
    options = manifest.builder.options
    calibration = manifest.calibration
    return BuildRequest(
        model=source,
        name=manifest.name,
        precision=manifest.precision,
        fp32_layers=manifest.keep or DEFAULT_FP32_LAYERS,
        method=calibration.method if calibration else "minmax",
        samples=calibration.samples if calibration else 256,
        profiles=tuple(options.get("profiles", ())),
        workspace=options.get("workspace"),
        window=options.get("window"),
        level=options.get("level"),
        sparse=bool(options.get("sparse")),
        refit=bool(options.get("refit")),
        version_compatible=bool(options.get("version_compatible")),
        split=bool(options.get("split")),
        stateful=bool(options.get("stateful")),
        tolerance=manifest.parity.tolerance,
        stored=calibration,
        content=content,
    )
