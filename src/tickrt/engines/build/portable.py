"""Engines of the `onnxruntime` backend: the lowered graph itself, as ONNX.

Entry point: `OnnxBuilder` (`bundle.toolchain.EngineBuilder`, and its own opener).
"""

from __future__ import annotations

from dataclasses import dataclass

from tickrt.backends import DEFAULT
from tickrt.engines.bundle.machine import library_version
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.check import ONNX
from tickrt.engines.graph.interface import Run
from tickrt.engines.graph.ort import OrtGraph, fused_layers
from tickrt.errors import ModelError

__all__ = ["OnnxBuilder"]


@dataclass(frozen=True)
class OnnxBuilder:
    """Builds for the CPU of any machine."""

    backend = DEFAULT
    library = DEFAULT
    format = ONNX
    suffix = "onnx"
    driver = None
    reproducible = "yes"
    options = ()
    splits = False
    typed = True
    skips_prefix = False
    precisions = ("fp32", "fp16", "int8")  # it cannot compute in bf16 and fp8 on the CPU

    @property
    def version(self) -> str:
        """ONNX Runtime's."""
        return library_version(self.library) or "?"

    def targets(self) -> tuple[str, ...]:
        """None: it is for the CPU."""
        return ()

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """The graph as it is. Raises ModelError where it does not load."""
        OrtGraph(order.model)  # it must load where it will run
        return MadeEngine(order.data, len(order.model.graph.node), fused_layers(order.data))

    def check(self, data: bytes) -> tuple[str, str]:
        """Whether it loads."""
        try:
            OrtGraph(data)
        except ModelError as error:
            return "failed", str(error)
        return "ok", ""

    def runner(self, data: bytes) -> Run:
        """The graph on one thread. Raises ModelError where it does not load."""
        return OrtGraph(data).run

    def why_not_here(self, built: Builder) -> str:
        """It runs everywhere."""
        return ""
