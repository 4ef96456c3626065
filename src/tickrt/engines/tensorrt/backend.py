"""The backends `tensorrt` and `tensorrt_rtx`: plans for NVIDIA GPUs, built offline.

Entry points: `TENSORRT`, `TENSORRT_RTX`, as `tickrt.backends` finds them.

Invariants: ``tensorrt`` without a GPU, or for named targets, is TensorRT-RTX: the one that builds
ahead of time.

Known limits: plans are built, checked and compared here; the loop does not run them yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickrt.backends import Probe
from tickrt.engines.bundle.machine import gpus
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Run
from tickrt.engines.tensorrt.builder import (
    EngineOptions,
    Library,
    build_engine,
    find_library,
    plan_validity,
)
from tickrt.engines.tensorrt.profiles import make_profiles
from tickrt.engines.tensorrt.run import PlanRunner, why_not_here
from tickrt.environment import cache_folder
from tickrt.errors import BuildError, ConfigError

__all__ = ["TENSORRT", "TENSORRT_RTX", "PlanBuilder", "PlanOpener", "default_cache"]

_RTX: Final = "tensorrt_rtx"
_WORKSPACE: Final = {"attention": 2 << 30}
_WORKSPACE_DEFAULT: Final = 512 << 20
_RESULTS: Final = {"valid": "ok", "suboptimal": "ok", "unknown": "not checked"}


def default_cache(library: str, version: str, arch: str) -> Path:
    """The timing cache of a GPU and library version, in the user's cache folder."""
    return cache_folder("timing") / f"{library}-{version}-sm{arch}.cache"


@dataclass(frozen=True)
class PlanOpener:
    """Checks and runs plans of one library (`bundle.toolchain.EngineOpener`)."""

    bindings: Library

    def check(self, data: bytes) -> tuple[str, str]:
        """The library's own verdict, where it has one."""
        validity, reasons = plan_validity(self.bindings, data)
        return _RESULTS.get(validity, "failed"), ", ".join(reasons) or validity

    def runner(self, data: bytes) -> Run:
        """The plan on this machine's GPU. Raises EngineError where it does not load."""
        return PlanRunner(self.bindings, data).run

    def why_not_here(self, built: Builder) -> str:
        """Why this machine cannot run the engines; empty when it can."""
        return why_not_here(built)


@dataclass(frozen=True)
class PlanBuilder(PlanOpener):
    """Builds plans (`bundle.toolchain.EngineBuilder`)."""

    asked: tuple[str, ...] = ()

    backend = "tensorrt"
    suffix = "plan"
    splits = False
    options = ("profiles", "workspace", "level", "sparse", "refit", "version_compatible")
    precisions = ("fp32", "fp16", "bf16", "int8", "fp8")

    @property
    def library(self) -> str:
        """``tensorrt`` or ``tensorrt_rtx``."""
        return self.bindings.name

    @property
    def version(self) -> str:
        """The library's."""
        return self.bindings.version

    @property
    def format(self) -> str:
        """The library's name: neither reads the other's plans."""
        return self.bindings.name

    @property
    def driver(self) -> str | None:
        """Only an engine that was tuned on this machine's GPU is tied to its driver."""
        here = gpus()
        return here[0].driver if here and not self.bindings.is_rtx else None

    @property
    def reproducible(self) -> str:
        """Neither library promises it."""
        if self.bindings.is_rtx:
            return "not always: the library numbers some kernels differently from build to build"
        return "no: tactics are chosen by timing them"

    def targets(self) -> tuple[str, ...]:
        """Those asked for, else this machine's GPU."""
        if self.asked:
            return self.asked
        here = gpus()
        if not here:
            raise ConfigError(
                f"{self.bindings.name} without a GPU: name one to build for, as --target 8.9"
            )
        return (here[0].arch,)

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """Build one graph into a plan."""
        targets = self.targets()
        cache = order.timing_cache or default_cache(self.library, self.version, targets[0])
        options = EngineOptions(
            targets=targets if self.bindings.is_rtx else (),
            profiles=make_profiles(order.inputs, order.profiles),
            workspace=order.workspace or _WORKSPACE.get(order.kind, _WORKSPACE_DEFAULT),
            level=order.level,
            sparse=order.sparse,
            refit=order.refit,
            version_compatible=order.version_compatible,
            timing_cache=cache,
        )
        plan = build_engine(self.bindings, order.data, options, progress)
        return MadeEngine(
            plan.data, plan.layers_before, plan.layers_after, options.profiles, plan.warnings
        )


@dataclass(frozen=True)
class _Backend:
    """One of the two libraries as a backend."""

    name: str

    def probe(self, targets: tuple[str, ...] = ()) -> Probe:
        """Whether ``auto`` may build with it: it is installed, and has a GPU to build for."""
        builds = ""
        if targets and self.name != _RTX:
            builds = "it builds for the GPU of this machine"
        elif not targets and not gpus():
            builds = "no GPU on this machine, and none named with --target"
        else:
            try:
                find_library(self.name)
            except BuildError as error:
                builds = str(error)
        return Probe(runs="the loop runs ONNX: build with --backend onnxruntime", builds=builds)

    def builder(self, targets: tuple[str, ...] = ()) -> PlanBuilder:
        """Raises BuildError where the library is not installed."""
        if self.name == _RTX or targets or not gpus():
            return PlanBuilder(find_library(_RTX), targets)
        return PlanBuilder(find_library(), targets)

    def opener(self) -> PlanOpener:
        """Raises BuildError where the library is not installed."""
        return PlanOpener(find_library(self.name))


TENSORRT = _Backend("tensorrt")
TENSORRT_RTX = _Backend(_RTX)
