"""Engines that are no backend of ours, for `tickrt bench engine`: what else would run the model.

Entry points: `PEERS` (name → what opens it), `OrtPeer`.

Limits: a peer is called from Python, as its users call it, so its times hold the call itself (its
facts say so). ONNX Runtime's CUDA provider is measured where it is installed. PyTorch runs in a
process of its own, on a module that `torch_module` writes from the ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.load import first_line
from tickrt.engines.graph.ort import ort_version, session_options
from tickrt.runtime.engine_bench import Floats, Runner
from tickrt.runtime.engine_child import ChildRunner
from tickrt.runtime.engine_peers_base import PythonPeer, Skipped
from tickrt.runtime.engine_torch import HOW

__all__ = ["PEERS", "OrtPeer", "Skipped"]


class OrtPeer(PythonPeer):
    """The whole model in ONNX Runtime's Python API, on a provider of its own.

    Args:
        provider: as ONNX Runtime calls it: ``CUDAExecutionProvider``.

    Raises:
        Skipped: the installed ONNX Runtime lacks the provider, or cannot start it here.
    """

    def __init__(self, model: LoopModel, provider: str) -> None:
        import onnxruntime as ort

        super().__init__(model, "onnxruntime")
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
        self._provider = provider

    def answer(self, window: Floats) -> Any:
        """One call of the session."""
        return self._session.run([self.model.output], {self.model.input: window})[0]

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


def _torch(how: str, model: LoopModel) -> Runner:
    if find_spec("torch") is None:  # before a process is started
        raise Skipped("torch is not installed: pip install torch")
    return ChildRunner("tickrt.runtime.engine_torch:open_peer", model, how)


PEERS: dict[str, Callable[[LoopModel], Runner]] = {
    "onnxruntime_cuda": lambda model: OrtPeer(model, "CUDAExecutionProvider"),
    **{f"torch_{how}": partial(_torch, how) for how in HOW},
}
