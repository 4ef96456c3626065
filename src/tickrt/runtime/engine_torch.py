"""PyTorch as a peer of `tickrt bench engine`: eager, as a CUDA graph, compiled.

Entry point: `open_peer(model, how)`, which `engine_child.ChildRunner` calls in a process of its
own. On a GPU where there is one, else on one thread of the CPU. A window goes there and its answer
comes back within the time: that is what a loop that deploys PyTorch pays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.load import first_line
from tickrt.errors import ModelError
from tickrt.runtime.engine_bench import Floats
from tickrt.runtime.engine_peers_base import PythonPeer, Skipped

__all__ = ["HOW", "open_peer"]

HOW = ("eager", "cuda_graph", "compile")
_WARM = 5  # runs before a graph is recorded, or after a compilation


class TorchPeer(PythonPeer):
    """The model as a PyTorch module (`torch_module`), called eagerly.

    Raises:
        Skipped: it cannot be written as one; says why.
    """

    def __init__(self, model: LoopModel, how: str) -> None:
        import torch

        from tickrt.runtime.torch_module import torch_module

        super().__init__(model, "torch")
        self.torch, self._how = torch, how
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(1)
        try:
            self.module = torch_module(model.content).to(self.device)
        except ModelError as error:
            raise Skipped(str(error)) from None

    def answer(self, window: Floats) -> Any:
        """There, through the module, and back."""
        with self.torch.inference_mode():
            x = self.torch.from_numpy(window).to(self.device)
            return self.module(x).to("cpu").numpy()

    def describe(self) -> dict[str, Any]:
        """Version, device, how it is run."""
        version = self.torch.__version__
        about = {"backend": "torch", "version": version, "how": self._how, "device": self.device}
        return {**about, "threads": self.torch.get_num_threads(), "called_from": "Python"}

    def close(self) -> None:
        """Nothing outlives the process."""


class CompiledPeer(TorchPeer):
    """Compiled by `torch.compile`; on a GPU its CUDA graphs with it (``reduce-overhead``).

    Raises:
        Skipped: what it needs is not there: a C++ compiler, or Triton.
    """

    def __init__(self, model: LoopModel, how: str) -> None:
        super().__init__(model, how)
        mode = "reduce-overhead" if self.device == "cuda" else "default"
        self.module = self.torch.compile(self.module, mode=mode)
        window = np.zeros((1, model.window, model.width), np.float32)
        try:
            for _ in range(_WARM):
                self.answer(window)
        except Exception as error:  # of a dozen kinds, without a common base
            raise Skipped(f"torch.compile: {first_line(error)}") from None


class GraphPeer(TorchPeer):
    """Recorded once as a CUDA graph, with memory of its own for window and answer.

    Raises:
        Skipped: there is no GPU, or the module cannot be recorded.
    """

    def __init__(self, model: LoopModel, how: str) -> None:
        super().__init__(model, how)
        torch = self.torch
        if self.device != "cuda":
            raise Skipped("a CUDA graph needs a GPU, and torch sees none")
        self._there = torch.zeros((1, model.window, model.width), device="cuda")
        self._out = torch.zeros((1, model.n_outputs)).pin_memory()
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.inference_mode():
                beside = torch.cuda.Stream()
                beside.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(beside):
                    for _ in range(_WARM):
                        self.module(self._there)
                torch.cuda.current_stream().wait_stream(beside)
                with torch.cuda.graph(self._graph):
                    self._out.copy_(self.module(self._there), non_blocking=True)
        except Exception as error:  # of a dozen kinds, without a common base
            raise Skipped(f"it cannot be recorded: {first_line(error)}") from None

    def answer(self, window: Floats) -> Any:
        """Window there, replay (which copies the answer), wait."""
        with self.torch.inference_mode():
            self._there.copy_(self.torch.from_numpy(window), non_blocking=True)
            self._graph.replay()
            self.torch.cuda.current_stream().synchronize()
        return self._out.numpy()


def open_peer(model: LoopModel, how: str) -> TorchPeer:
    """One of `HOW`.

    Raises:
        Skipped: torch is not installed, or it cannot run the model so; says why.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise Skipped(f"torch cannot be imported ({error}): pip install torch") from None
    kinds = {"eager": TorchPeer, "compile": CompiledPeer, "cuda_graph": GraphPeer}
    return kinds[how](model, how)
