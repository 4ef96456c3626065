"""A model as TensorRT plans in an engine host, as the loop has engines.

Entry point: `Loader`. A bundle's plans run as they were built; an ONNX model is built when a
session first needs it, and its plans are kept in the cache folder under all that decides what they
are.

Limits: one row at a time; float32 between the graphs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import onnx

from tickrt import __version__
from tickrt.engines.build.parity import TOLERANCES
from tickrt.engines.bundle.toolchain import EngineOrder
from tickrt.engines.graph.load import model_kind, tensor_infos
from tickrt.environment import cache_folder
from tickrt.errors import ConfigError
from tickrt.files import write_file
from tickrt.host.cores import cores_beside
from tickrt.host.memory.registry import ORDINARY
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.mailbox.stream import (
    bundled_stream,
    graphs_of,
    parity_rows,
    stream_facts,
    stream_parcel,
)
from tickrt.runtime.backends.tensorrt.builder import PlanBuilder
from tickrt.runtime.backends.wanted import onnx_source, wanted_split

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.split.plan import SplitPlan
    from tickrt.host.kernels.stream import StreamFacts
    from tickrt.host.mps import Sharing
    from tickrt.host.parcel import Parcel
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["Loader", "cached_plans"]


def cached_plans(graphs: dict[str, bytes], name: str, python: str) -> dict[str, bytes]:
    """Plans of ONNX graphs for this machine's GPU, by role; what was built before is not again.

    Args:
        graphs: by role.
        name: of the library.
        python: the interpreter that has it.

    Raises:
        BuildError: the library is not there, or cannot build a graph.
        ConfigError: no GPU, or no such interpreter.
        HostError: the host ended.
    """
    builder = PlanBuilder(name, python)
    try:
        here = builder.bindings.here
        if not here.gpus:
            raise ConfigError(f"{name}: no GPU here: it builds for the one that it runs on")
        gpu = here.gpus[0]
        about = f"{name} {builder.version} {gpu.name} {gpu.arch} {gpu.driver} {__version__}"
        plans = {}
        for role, content in graphs.items():
            key = hashlib.sha256(about.encode() + b"\0" + content).hexdigest()[:32]
            path = cache_folder("plans") / f"{key}.plan"
            try:
                plans[role] = path.read_bytes()
                continue
            except FileNotFoundError:
                pass
            plans[role] = _build(builder, content)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, [plans[role]])
        return plans
    finally:
        builder.bindings.close()


def _build(builder: PlanBuilder, content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    inputs = tensor_infos(model.graph.input)
    order = EngineOrder(model=model, data=content, inputs=inputs, kind=model_kind(model))
    return builder.build(order, None).data


class Loader:
    """Loads the engines of a session, each into a host of its own, which share one GPU.

    Args:
        name: of the backend and its library.
        sharing: of the GPU.
    """

    def __init__(self, name: str, sharing: Sharing) -> None:
        self._name, self._sharing = name, sharing

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        """The model in a host process of its own; what was built here answers parity rows first.

        Raises:
            ConfigError: the settings ask for what the model or bundle does not have.
            IncompatibleError: a bundle that was built by another backend or release.
            BuildError: the library is not there, or cannot build the model.
            EngineError: its answers differ from ONNX Runtime's.
            HostError: the host or the GPU refuses it.
        """
        python, parity = settings.engine_python or "", None
        built = source.built and source.model.format == self._name
        if not built:
            onnx_source(source, self._name)
        split = wanted_split(source, settings)
        facts = stream_facts(source.model, split)
        if built:
            parcel = bundled_stream(source, settings, facts)
        else:
            parcel = self._fresh(source, split, facts, python)
            if source.model.content and facts.mode != "carry":
                parity = (*parity_rows(source.model), TOLERANCES["fp32"])
        cores = cores_beside(settings.pin_cpu)
        host = HostProcess(python, environment=self._sharing.environment(), cores=cores)
        return MailboxEngine(self._name, source.model, ring, host, parcel, ORDINARY, parity=parity)

    def _fresh(
        self, source: Source, split: SplitPlan | None, facts: StreamFacts, python: str
    ) -> Parcel:
        graphs = graphs_of(source.model, split, facts)
        plans: dict[str, Any] = cached_plans(graphs, self._name, python)
        return stream_parcel(source, split, facts, self._name, plans)

    def close(self) -> None:
        """End what the hosts shared; they have ended."""
        self._sharing.close()
