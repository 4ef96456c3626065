"""What to build, and with what: the request, the backend and the target that follow from it.

Entry points: `BuildRequest`, `choose_backend`, `resolve_targets`, `rebuild_request`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from tickrt.engines.bundle.machine import gpus
from tickrt.engines.bundle.manifest import Calibration, Manifest
from tickrt.engines.precision.convert import Precision
from tickrt.engines.precision.fp32_layers import DEFAULT_KEEP
from tickrt.engines.precision.quantize import Method
from tickrt.engines.tensorrt.builder import Library, find_library
from tickrt.errors import BuildError, ConfigError
from tickrt.literals import BuildBackend

__all__ = ["BACKENDS", "BuildRequest", "choose_backend", "rebuild_request", "resolve_targets"]

BACKENDS = get_args(BuildBackend)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

        request = tr.BuildRequest(Path("mine.onnx"), precision="fp16", tolerance=1e-2)
        tr.build(request, "mine16.bundle")

    Attributes:
        backend: one of `BACKENDS`.
        targets: GPU architectures, for TensorRT-RTX; empty: this machine's.
        keep: layers that stay in float32.
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
    """

    model: Path
    name: str = ""
    backend: str = "auto"
    targets: tuple[str, ...] = ()
    precision: Precision = "fp32"
    keep: tuple[str, ...] = DEFAULT_KEEP
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


def choose_backend(request: BuildRequest) -> Library | None:
    """The TensorRT to build with, or None for ONNX Runtime.

    ``auto``: with targets, TensorRT-RTX; with a GPU, a TensorRT that is installed; else ONNX
    Runtime, which every machine can run. ``tensorrt`` without a GPU is TensorRT-RTX too, the one
    that builds ahead of time.

    Raises:
        BuildError: the one named is not installed.
        ConfigError: there is no such backend, or a target is missing or out of place.
    """
    if request.backend not in BACKENDS:
        raise ConfigError(f"--backend {request.backend}: one of {', '.join(BACKENDS)}")
    if request.backend == "onnxruntime":
        if request.targets:
            raise ConfigError("--target is for TensorRT; the onnxruntime backend runs on the CPU")
        return None
    here = bool(gpus())
    if request.backend == "tensorrt_rtx" or request.targets:
        return find_library("tensorrt_rtx")
    if request.backend == "tensorrt":
        return find_library() if here else find_library("tensorrt_rtx")
    if not here:
        return None
    try:
        return find_library()
    except BuildError:
        return None


def resolve_targets(request: BuildRequest, library: Library | None) -> tuple[str, ...]:
    """The architectures that the engines will be for; none for the CPU.

    Raises:
        ConfigError: no GPU here and none named.
    """
    if library is None:
        return ()
    if request.targets:
        return request.targets
    here = gpus()
    if not here:
        raise ConfigError(f"{library.name} without a GPU: name one to build for, as --target 8.9")
    return (here[0].arch,)


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
        keep=manifest.keep or DEFAULT_KEEP,
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
