"""ONNX Runtime on the CPU, through its Python API: for everything but the hot loop.

Entry points: `open_session`, `OrtGraph` (a session as a function of named arrays), `folded`,
`fused_layers`.

Invariants: one thread unless more are asked for (the same sums in the same order, every time), the
CPU provider only, no warnings on the terminal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from tickrt.engines.graph.interface import Array
from tickrt.engines.graph.load import first_line
from tickrt.errors import EngineError, ModelError

__all__ = [
    "OrtGraph",
    "folded",
    "fused_layers",
    "open_session",
    "ort_version",
    "session_options",
]


def ort_version() -> str:
    """The installed version of ONNX Runtime, without importing it."""
    return version("onnxruntime")


def session_options(threads: int = 1, optimise: bool = True) -> Any:
    """Session options: `threads` inside an operator (0: as many as cores), one between them.

    Args:
        optimise: False runs the nodes as they are written.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def open_session(model: ModelProto | bytes, threads: int = 1, optimise: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` of a model; options as in `session_options`.

    Raises:
        Exception: what ONNX Runtime raises; its exceptions have no common public base.
    """
    import onnxruntime as ort

    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = session_options(threads, optimise)
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class OrtGraph:
    """An ONNX graph in ONNX Runtime on the CPU. Raises ModelError where it cannot be loaded.

    Args:
        optimise: False for FP8: ONNX Runtime's optimiser computes its Q/DQ wrongly on the CPU, its
            kernels do not.
    """

    def __init__(self, model: ModelProto | bytes, optimise: bool = True) -> None:
        try:
            self._session = open_session(model, optimise=optimise)
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run the model: {first_line(error)}") from None
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.batch = self._session.get_inputs()[0].shape[0]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name; inputs that the graph does not have are ignored."""
        used = {name: feed[name] for name in self.inputs}
        try:
            values = self._session.run(self.outputs, used)
        except Exception as error:
            raise EngineError(f"onnxruntime: {first_line(error)}") from None
        return dict(zip(self.outputs, values, strict=True))


def _optimised(data: bytes, level: str) -> ModelProto:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def folded(model: ModelProto) -> ModelProto:
    """The graph with all that is constant computed, in ONNX's own operators still.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    try:
        return _optimised(model.SerializeToString(), "ORT_ENABLE_BASIC")
    except Exception as error:
        raise ModelError(f"onnxruntime cannot read the model: {first_line(error)}") from None


def fused_layers(data: bytes) -> int:
    """How many nodes an ONNX graph has after ONNX Runtime's fusions that every machine does."""
    return len(_optimised(data, "ORT_ENABLE_EXTENDED").graph.node)
