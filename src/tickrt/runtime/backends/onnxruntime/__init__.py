"""ONNX Runtime through its C API, called by the compiled loop.

- `probe`, `load`, `load_group`, `builder`, `opener`: the backend, as `tickrt.backends` calls it.
- `api`: sessions and tensors as addresses; `whole`: the whole window; `split`: tick-split models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickrt.backends import Probe
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickrt.config import SessionConfig
    from tickrt.engines.build.portable import OnnxBuilder
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["builder", "load", "load_group", "opener", "probe"]


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
    from tickrt.runtime.backends.onnxruntime.split import SplitEngine
    from tickrt.runtime.backends.onnxruntime.whole import OrtEngine
    from tickrt.runtime.backends.wanted import onnx_source, wanted_split

    onnx_source(source, "onnxruntime")
    split_plan = wanted_split(source, settings)
    if split_plan is not None:
        return SplitEngine(source.model, split_plan, ring, settings.threads)
    return OrtEngine(source.model, ring, settings.threads)


def load_group(
    source: Source, rings: Sequence[RowRing], settings: SessionConfig
) -> list[Engine] | None:
    """The whole-window model on many streams in an engine host, where `max_batch` says so; None: in
    the loop's own thread, one by one.

    Raises:
        ConfigError: a bundle that was built split, carried state, or too many streams.
        IncompatibleError: a bundle of another backend; a model that takes one window only.
        HostError: the process does not start.
    """
    from dataclasses import replace

    from tickrt.host.cores import cores_beside
    from tickrt.host.kernels.onnx_windows import FORMAT, parcel
    from tickrt.host.process import HostProcess
    from tickrt.runtime.backends.mailbox.batch import group
    from tickrt.runtime.backends.mailbox.parcel import bundle_parcel
    from tickrt.runtime.backends.wanted import onnx_source

    if (settings.max_batch or 1) == 1:
        return None
    onnx_source(source, "onnxruntime")
    if settings.stateful or source.plan is not None:
        raise ConfigError(
            f"{source.model.name}: max_batch = {settings.max_batch} runs whole windows in batches, "
            "which has no carried state and no split: drop max_batch, or build with --no-split"
        )
    window, width = rings[0].window, rings[0].width
    made = parcel(str(source.path), source.model.content, window, width, settings.threads)
    if source.built:  # its signature is verified in the host as well
        bundle = bundle_parcel(source, settings)
        made = replace(bundle, facts={**made.facts, **bundle.facts}, kernel=FORMAT)
    host = HostProcess(settings.engine_python or "", cores=cores_beside(settings.pin_cpu))
    return group("onnxruntime", source.model, rings, host, made, settings.max_batch or 1)
