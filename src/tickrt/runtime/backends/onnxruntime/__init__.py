"""ONNX Runtime through its C API, called by the compiled loop.

- `probe`, `load`, `builder`, `opener`: the backend, as `tickrt.backends` calls it.
- `api`: sessions and tensors as addresses; `whole`: the whole window; `split`: tick-split models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickrt.backends import Probe
from tickrt.errors import ConfigError, IncompatibleError

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.build.portable import OnnxBuilder
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["builder", "load", "opener", "probe"]


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs and builds everywhere, but for no GPU."""
    return Probe(builds="it runs on the CPU: --target is for a GPU" if targets else "")


def builder(targets: tuple[str, ...] = ()) -> OnnxBuilder:
    """Raises ConfigError where a target is named."""
    from tickrt.engines.build.portable import OnnxBuilder

    if targets:
        raise ConfigError("--target is for TensorRT; the onnxruntime backend runs on the CPU")
    return OnnxBuilder()


def opener() -> OnnxBuilder:
    """The builder: its engines are ONNX."""
    return builder()


def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The model split where that is wanted, possible and exact, else whole.

    Raises:
        ConfigError: the settings ask for what the model or bundle does not have.
        IncompatibleError: the bundle was built by another backend.
        ModelError: ONNX Runtime cannot load it.
    """
    from tickrt.engines.graph.check import ONNX
    from tickrt.runtime.backends.onnxruntime.split import SplitEngine
    from tickrt.runtime.backends.onnxruntime.whole import OrtEngine
    from tickrt.runtime.model_source import split_to_run

    if source.model.format != ONNX:
        raise IncompatibleError(
            f"{source.path}: its engines were built by the backend {source.model.format!r}: run it "
            f"with --backend {source.model.format}, or build it for this one with: tickrt build "
            f"--rebuild {source.path} -o X.bundle --backend onnxruntime"
        )
    split_plan = split_to_run(source, settings)
    if split_plan is not None:
        return SplitEngine(source.model, split_plan, ring, settings.threads)
    return OrtEngine(source.model, ring, settings.threads)
