"""The backends `tensorrt` and `tensorrt_rtx`: plans for NVIDIA GPUs, built and run in a host.

- `TENSORRT`, `TENSORRT_RTX`: the backends, as `tickrt.backends` finds them.
- `builder`: builds, checks and runs plans offline; `engine`: what the loop runs.

The library is imported in a host process alone, under the interpreter that has it: ours, or the one
that ``engine_python`` names.

Invariants: ``tensorrt`` without a GPU, or for named targets, is TensorRT-RTX: the one that builds
ahead of time.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from tickrt.backends import Probe
from tickrt.engines.bundle.machine import cuda_library, gpus

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.bundle.machine import Here
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.backends.tensorrt.builder import PlanBuilder, PlanOpener
    from tickrt.runtime.backends.tensorrt.engine import Loader
    from tickrt.runtime.model_source import Source

__all__ = ["TENSORRT", "TENSORRT_RTX"]

_NAME: Final = "tensorrt"
_RTX: Final = "tensorrt_rtx"


def _installed(name: str) -> bool:
    """Whether our own interpreter has the library; it is not imported."""
    return importlib.util.find_spec(name) is not None


@dataclass(frozen=True)
class _Backend:
    """One of the two libraries as a backend; `python` is the interpreter that has it."""

    name: str
    python: str = ""
    ON_GPU: ClassVar = True

    def under(self, python: str) -> _Backend:
        """The same, under another interpreter."""
        return replace(self, python=python)

    def here(self) -> Here:
        """What a host under that interpreter finds: the library's version, and the GPUs.

        Raises:
            ConfigError, HostError: the host does not start.
        """
        from tickrt.runtime.backends.tensorrt.builder import Library

        return Library(self.name, self.python).here

    def probe(self, targets: tuple[str, ...] = ()) -> Probe:
        """It runs where a driver is; whether ``auto`` may build with it. No GPU is touched but to
        look for it."""
        runs = ""
        if cuda_library() is None:
            runs = (
                "no CUDA driver here (libcuda.so.1): it needs an NVIDIA GPU; --backend native runs "
                "on the CPU"
            )
        builds = ""
        if targets and self.name != _RTX:
            builds = "it builds for the GPU of this machine"
        elif not targets and not gpus():
            builds = "no GPU on this machine, and none named with --target"
        elif not self.python and not _installed(self.name):
            builds = f"{self.name} is not installed"
        return Probe(runs=runs, builds=builds, in_host=True)

    def builder(self, targets: tuple[str, ...] = ()) -> PlanBuilder:
        """Raises BuildError where the library is not installed, ConfigError for no interpreter."""
        from tickrt.runtime.backends.tensorrt.builder import PlanBuilder

        ahead = targets or not (gpus() or self.python)
        return PlanBuilder(_RTX if ahead else self.name, self.python, targets)

    def opener(self) -> PlanOpener:
        """Raises BuildError where the library is not installed."""
        from tickrt.runtime.backends.tensorrt.builder import PlanOpener

        return PlanOpener(self.name, self.python)

    def prepare(self, engines: int, settings: SessionConfig) -> Loader:
        """Make ready for that many engines: more than one share the GPU under MPS.

        Raises:
            ConfigError: more than one, and there is no MPS; time slices must be allowed by name.
        """
        from tickrt.host.mps import share_gpu
        from tickrt.runtime.backends.tensorrt.engine import Loader

        sharing = share_gpu(engines, allow_time_slicing=settings.allow_time_slicing)
        return Loader(self.name, sharing)

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        """The model, alone on the GPU, in a host process of its own (`engine.Loader.load`)."""
        return self.prepare(1, settings).load(source, ring, settings)


TENSORRT = _Backend(_NAME)
TENSORRT_RTX = _Backend(_RTX)
