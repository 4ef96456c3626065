"""What a backend that builds engines has to offer, and what passes between it and the build.

Entry points: `EngineOpener` (checks and runs engines offline), `EngineBuilder` (also makes them),
`EngineOrder` → `MadeEngine`. A backend hands them out by name: `tickrt.backends`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onnx import ModelProto

from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.graph.interface import Run, TensorInfo

__all__ = ["EngineBuilder", "EngineOpener", "EngineOrder", "MadeEngine", "Phase", "Shapes"]

Phase = Callable[[str, int, int], None]  # phase, done, total; perhaps from another thread
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]  # min, opt, max


@dataclass(frozen=True)
class EngineOrder:
    """One graph to be built, in its final precision.

    Attributes:
        model: the graph.
        data: the same, serialised.
        inputs: its inputs; a dynamic axis is its name.
        kind: of the whole model, as `graph.load.model_kind` says it.
        profiles: ``input=min:opt:max`` texts, one for each profile.
        workspace: bytes; None: by the model's kind.
        precision: what the builder may compute in, where it is told and the graph does not say it.
        level, sparse, refit, version_compatible, timing_cache, split, stateful: as in
            `BuildRequest`; the last two are for builders that split.
    """

    model: ModelProto
    data: bytes
    inputs: tuple[TensorInfo, ...]
    kind: str
    profiles: tuple[str, ...] = ()
    workspace: int | None = None
    precision: str = "fp32"
    level: int | None = None
    sparse: bool = False
    refit: bool = False
    version_compatible: bool = False
    timing_cache: Path | None = None
    split: bool = True
    stateful: bool = False


@dataclass(frozen=True)
class MadeEngine:
    """A built engine: its bytes, and what the manifest says of it.

    Attributes:
        more: further payloads of its bundle, by name.
        stand_in: what `EngineOpener.runner` runs in its place, in words; empty: the engine itself.
    """

    data: bytes
    layers_before: int
    layers_after: int | None
    profiles: tuple[Shapes, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    more: Mapping[str, bytes] = field(default_factory=dict)
    stand_in: str = ""


class EngineOpener(Protocol):
    """Checks and runs engines of one format, outside the loop."""

    def check(self, data: bytes) -> tuple[str, str]:
        """``ok``, ``failed`` or ``not checked``, and why."""
        ...

    def runner(self, data: bytes) -> Run:
        """The engine as a function, for parity checks. Raises EngineError or ModelError."""
        ...

    def why_not_here(self, built: Builder) -> str:
        """Why this machine cannot run the engines of a bundle; empty where it can."""
        ...


class EngineBuilder(EngineOpener, Protocol):
    """Makes engines. The attributes go into the manifest as they are.

    Attributes:
        backend: the family, as `Builder.backend`.
        library: the name under which `tickrt.backends` knows it; its distribution's version decides
            whether a bundle may be loaded elsewhere.
        format: of its engines: ``onnx``, or the backend's name.
        suffix: of its payloads: ``onnx``, ``plan``.
        driver: the CUDA driver that its engines are tied to, or None.
        reproducible: ``yes``, or why equal builds are not equal files.
        options: names of those fields of an `EngineOrder` that it heeds.
        precisions: what it can compute in.
        splits: True where it is given the whole model, and splits it itself.
        typed: precision is written into the graph; else the builder is told it (`EngineOrder`).
        skips_prefix: True where it needs no `pre` of a model that keeps a bank of states.
    """

    @property
    def backend(self) -> str: ...
    @property
    def library(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def driver(self) -> str | None: ...
    @property
    def reproducible(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...
    @property
    def precisions(self) -> tuple[str, ...]: ...
    @property
    def splits(self) -> bool: ...
    @property
    def typed(self) -> bool: ...
    @property
    def skips_prefix(self) -> bool: ...

    def targets(self) -> tuple[str, ...]:
        """The GPU architectures that it builds for; none for the CPU.

        Raises:
            ConfigError: no GPU here and none named.
        """
        ...

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """Build one graph. Raises BuildError or ModelError with the layer's name."""
        ...
