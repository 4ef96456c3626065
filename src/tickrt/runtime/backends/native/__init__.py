"""Models as C of their own, compiled here, in the loop's own thread.

- `probe`, `load`, `builder`, `opener`: the backend, as `tickrt.backends` calls it.
- `engine`: what the loop runs.

A model that cannot be generated, or that is not exact, runs in ONNX Runtime instead: the log and
the engine's description say why.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tickrt.backends import Probe
from tickrt.errors import BuildError, ConfigError, EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tickrt.config import SessionConfig
    from tickrt.engines.native.builder import NativeBuilder
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["builder", "load", "opener", "probe"]

_LOG = logging.getLogger("tickrt.native")


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs everywhere: without a compiler, in ONNX Runtime. It builds where there is one."""
    from tickrt.engines.native.compiler import why_not

    return Probe(builds="it runs on the CPU: --target is for a GPU" if targets else why_not())


def builder(targets: tuple[str, ...] = ()) -> NativeBuilder:
    """Raises ConfigError where a target is named."""
    from tickrt.engines.native.builder import NativeBuilder

    if targets:
        raise ConfigError("--target is for TensorRT; the native backend runs on the CPU")
    return NativeBuilder()


def opener() -> NativeBuilder:
    """The builder."""
    return builder()


class _Instead:
    """An engine of ONNX Runtime that says why it is not `native`."""

    def __init__(self, engine: Engine, why_not: str) -> None:
        self._engine, self._why_not = engine, why_not
        self.backend = engine.backend
        self.drawing = str(getattr(engine, "drawing", ""))

    def handle(self) -> NDArray[np.int64]:
        """The engine's."""
        return self._engine.handle()

    def describe(self) -> dict[str, Any]:
        """The engine's, and the reason."""
        return self._engine.describe() | {"why_not_native": self._why_not}

    def error(self) -> str:
        """The engine's."""
        return self._engine.error()

    def close(self) -> None:
        """The engine's."""
        self._engine.close()


def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The model as code of its own, split where that is wanted, possible and exact; or in ONNX
    Runtime, where it cannot be.

    Raises:
        ConfigError: the settings ask for what the model or bundle does not have.
        IncompatibleError: the bundle was built by another backend.
        ModelError: ONNX Runtime cannot load it either.
    """
    from tickrt.engines.native import prepare, split_figures
    from tickrt.engines.translate import TranslateError
    from tickrt.runtime.backends import onnxruntime
    from tickrt.runtime.backends.native.engine import NativeEngine
    from tickrt.runtime.backends.wanted import onnx_source, wanted_split

    if source.model.format == "native":
        return _from_bundle(source, ring, settings)
    onnx_source(source, "native")
    split = wanted_split(source, settings)
    try:
        if settings.threads > 1:
            raise BuildError(f"it runs on one thread, and threads = {settings.threads} is set")
        prepared = prepare(source.model, split, settings.weights)
        drawing = "" if split is None else str(split.figures.get("drawing", ""))
        return NativeEngine(source.model, prepared, ring, split_figures(split), drawing)
    except (TranslateError, BuildError, EngineError) as error:
        _LOG.warning("%s runs in onnxruntime, not native: %s", source.model.name, error)
        return _Instead(onnxruntime.load(source, ring, settings), str(error))


def _from_bundle(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The compiled program that a bundle holds.

    Raises:
        ConfigError: the settings ask for what it does not have.
        BundleError, IncompatibleError, BuildError: it cannot run here; says why.
    """
    from tickrt.engines.native import unpack
    from tickrt.runtime.backends.native.engine import NativeEngine

    prepared, figures = unpack(source.model.content, str(source.path))
    name, split = source.model.name, (figures or {}).get("split")
    if settings.weights != prepared.weights:
        raise ConfigError(
            f"{name}: the bundle holds weights in {prepared.weights}, weights = "
            f"{settings.weights!r} is set: drop it, or run the ONNX model"
        )
    if settings.stateful != (split == "carry"):
        raise ConfigError(
            f"{name}: it was built {'with' if split == 'carry' else 'without'} --stateful"
        )
    if split and not settings.split:
        raise ConfigError(f"{name}: the bundle was built split: build it with --no-split")
    return NativeEngine(source.model, prepared, ring, figures)
