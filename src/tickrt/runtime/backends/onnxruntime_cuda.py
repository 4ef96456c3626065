"""The `onnxruntime-cuda` backend: ONNX Runtime's CUDA provider, in an engine host.

Entry points: `probe`, `prepare`, `load`, as `tickrt.backends` calls them. The host runs under the
interpreter that has ``onnxruntime-gpu``: ours, or the one that ``engine_python`` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickrt.backends import Probe

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.host.mps import Sharing
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["ON_GPU", "load", "prepare", "probe"]

ON_GPU = True
_NAME = "onnxruntime-cuda"


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs where CUDA's driver is; whether the host has the provider is asked when it loads."""
    from tickrt.engines.bundle.machine import cuda_library

    runs = ""
    if cuda_library() is None:
        runs = (
            "no CUDA driver here (libcuda.so.1): it needs an NVIDIA GPU, and onnxruntime-gpu in "
            "this environment or in that of --engine-python"
        )
    return Probe(runs=runs, in_host=True)


class _Loader:
    """Loads the engines of a session, each into a host of its own, which share one GPU."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        """The model in a host process of its own. Raises as `load`."""
        from tickrt.host.cores import cores_beside
        from tickrt.host.kernels.onnxruntime_cuda import FORMAT
        from tickrt.host.process import HostProcess
        from tickrt.runtime.backends.mailbox.engine import MailboxEngine
        from tickrt.runtime.backends.mailbox.stream import (
            bundled_stream,
            graphs_of,
            stream_facts,
            stream_parcel,
        )
        from tickrt.runtime.backends.wanted import onnx_source, wanted_split

        onnx_source(source, _NAME)
        split = wanted_split(source, settings)
        facts = stream_facts(source.model, split)
        if source.built:
            parcel = bundled_stream(source, settings, facts)
        else:
            graphs = graphs_of(source.model, split, facts)
            parcel = stream_parcel(source, split, facts, FORMAT, graphs)
        host = HostProcess(
            settings.engine_python or "",
            environment=self._sharing.environment(),
            cores=cores_beside(settings.pin_cpu),
        )
        return MailboxEngine(_NAME, source.model, ring, host, parcel)

    def close(self) -> None:
        """End what the hosts shared; they have ended."""
        self._sharing.close()


def prepare(engines: int, settings: SessionConfig) -> _Loader:
    """Make ready for that many engines: more than one share the GPU under MPS.

    Raises:
        ConfigError: more than one, and there is no MPS; time slices must be allowed by name.
    """
    from tickrt.host.mps import share_gpu

    return _Loader(share_gpu(engines, allow_time_slicing=settings.allow_time_slicing))


def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The model, alone on the GPU, in a host process of its own.

    Raises:
        ConfigError: the settings ask for what the model or bundle does not have.
        IncompatibleError: the bundle was built by another backend.
        HostError: the host has no such provider, or no GPU; says how to get it.
    """
    return prepare(1, settings).load(source, ring, settings)
