"""Engines that are no backend of ours, for `tickrt bench engine`: what else would run the model.

Entry points: `PEERS` (name → what opens it), `Skipped` (why it cannot be measured here).

Limits: a peer is called from Python, as its users call it, so its times hold the call itself (its
facts say so). ONNX Runtime's CUDA provider is measured where it is installed; PyTorch has no reader
of ONNX files, and a translation of ours would measure that translation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.load import first_line
from tickrt.engines.graph.ort import ort_version, session_options
from tickrt.errors import EngineError, TickrtError
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.engine_bench import Fed, Floats, Runner

__all__ = ["PEERS", "OrtPeer", "Skipped"]


class Skipped(TickrtError):
    """It cannot be measured on this machine; says why."""


class OrtPeer:
    """The whole model in ONNX Runtime's Python API, on a provider of its own.

    Args:
        provider: as ONNX Runtime calls it: ``CUDAExecutionProvider``.

    Raises:
        Skipped: the installed ONNX Runtime lacks the provider, or cannot start it here.
    """

    def __init__(self, model: LoopModel, provider: str) -> None:
        import onnxruntime as ort

        offered = ort.get_available_providers()
        if provider not in offered:
            raise Skipped(
                f"the installed onnxruntime has no {provider} (it has {', '.join(offered)}): "
                "pip install onnxruntime-gpu"
            )
        try:
            self._session = ort.InferenceSession(
                model.content, session_options(), providers=[provider]
            )
        except Exception as error:  # its exceptions have no common public base
            raise Skipped(f"onnxruntime, {provider}: {first_line(error)}") from None
        if (used := self._session.get_providers())[0] != provider:
            raise Skipped(f"onnxruntime runs it on {used[0]}: {provider} does not start here")
        self._model, self._provider = model, provider
        self._rows = np.zeros((model.window, model.width), np.float32)
        self._sent = 0

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """As `engine_bench.Feed.run`, called from Python."""
        model, rate = self._model, ticks_per_ns()
        answers, advances = np.zeros((2, len(rows)), np.int64)
        outputs = np.full((len(rows), model.n_outputs), np.nan, np.float32)
        start = time.perf_counter_ns()
        for i, row in enumerate(rows):
            self._rows = np.concatenate([self._rows[1:], row[None]])
            self._sent += 1
            if self._sent >= model.window:
                began = time.perf_counter_ns()
                try:
                    found = self._session.run([model.output], {model.input: self._rows[None]})
                except Exception as error:  # its exceptions have no common public base
                    where = f"row {self._sent}: onnxruntime"
                    raise EngineError(f"{where}: {first_line(error)}") from None
                answers[i] = round((time.perf_counter_ns() - began) * rate)
                outputs[i] = found[0].ravel()
            until = time.perf_counter_ns() + gap_us * 1e3
            while time.perf_counter_ns() < until:
                pass
        ticks = round((time.perf_counter_ns() - start) * rate)
        return Fed(answers, advances, outputs, ticks)

    def describe(self) -> dict[str, Any]:
        """Provider and version, and that it is called from Python."""
        return {
            "backend": "onnxruntime",
            "version": ort_version(),
            "provider": self._provider,
            "called_from": "Python",
        }

    def close(self) -> None:
        """End the session."""
        del self._session


def _torch(model: LoopModel) -> Runner:
    if find_spec("torch") is None:
        raise Skipped("torch is not installed: pip install torch")
    raise Skipped("no torch model of an ONNX file here")


PEERS: dict[str, Callable[[LoopModel], Runner]] = {
    "onnxruntime_cuda": lambda model: OrtPeer(model, "CUDAExecutionProvider"),
    "torch_eager": _torch,
    "torch_cuda_graph": _torch,
    "torch_compile": _torch,
}
