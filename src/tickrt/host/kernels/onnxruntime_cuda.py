"""ONNX Runtime with its CUDA provider in the host, every tensor bound once.

Entry points: `warm`, `load`, `look`, as `registry` and `workshop` ask for them.

Rows, states and banks lie in OrtValues that are allocated at load, on the provider's device; a run
copies the newest row there and the outputs back, nothing else. The provider is a fact of the
parcel: with ``CPUExecutionProvider`` the same code runs on the CPU.

Invariants: ONNX Runtime leaves a provider that it cannot have for the CPU without an error; here
that is one. A graph that is computed partly elsewhere is ONNX Runtime's own choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from tickrt.engines.bundle.machine import gpus, platform_name
from tickrt.errors import HostError
from tickrt.host.kernels.registry import Payloads
from tickrt.host.kernels.stream import Floats, StreamFacts, StreamKernel

__all__ = ["CUDA", "FORMAT", "OrtGraphs", "load", "look", "warm"]

FORMAT = "onnx"
CUDA = "CUDAExecutionProvider"
_DEVICES = {CUDA: "cuda", "CPUExecutionProvider": "cpu"}
_ADVICE = "pip install onnxruntime-gpu, or name an interpreter that has it: --engine-python"


def _runtime(provider: str) -> Any:
    """ONNX Runtime. Raises HostError: it is not here, or does not have the provider."""
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError as error:
        raise HostError(f"onnxruntime is not installed ({error}): {_ADVICE}") from error
    if provider not in onnxruntime.get_available_providers():
        raise HostError(f"onnxruntime {onnxruntime.__version__} has no {provider} here: {_ADVICE}")
    return onnxruntime


class _Graph:
    """A session, and its tensors bound."""

    def __init__(self, runtime: Any, provider: str, content: bytes) -> None:
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(content, options, providers=[provider])
        except Exception as error:  # its exceptions have no common public base
            raise HostError(f"onnxruntime cannot load the graph: {error}") from error
        used = self._session.get_providers()
        if provider not in used:
            raise HostError(f"onnxruntime leaves {provider} for {used[0]}: its libraries miss")

    def bound(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """A run on these OrtValues. Raises HostError: the graph has a tensor that is not there."""
        binding = self._session.io_binding()
        for value in self._session.get_inputs():
            if value.name not in inputs:
                raise HostError(f"the graph reads {value.name!r}, which the model has not")
            binding.bind_ortvalue_input(value.name, inputs[value.name])
        for value in self._session.get_outputs():
            if value.name not in outputs:
                raise HostError(f"the graph puts out {value.name!r}, which the model has not")
            binding.bind_ortvalue_output(value.name, outputs[value.name])
        return binding

    def run(self, binding: Any) -> None:
        """Run, and wait for the end."""
        self._session.run_with_iobinding(binding)


class OrtGraphs:
    """A model's graphs in ONNX Runtime (`stream.Graphs`).

    Args:
        provider: an execution provider.
        facts: the model.
        graphs: ONNX by role.
        starts: start values of the bank.

    Raises:
        HostError: ONNX Runtime or the provider is not here, or a graph cannot be loaded.
    """

    def __init__(
        self,
        provider: str,
        facts: StreamFacts,
        graphs: Mapping[str, memoryview],
        starts: list[Floats],
    ) -> None:
        runtime = _runtime(provider)
        self._facts, self._starts, self._provider = facts, starts, provider
        self._value, self._device = runtime.OrtValue, _DEVICES[provider]
        self.history: Floats = np.zeros((2 * facts.window, facts.width), np.float32)
        self._window = np.zeros((1, facts.window, facts.width), np.float32)
        known = facts.window - (facts.mode != "whole")
        self._known = self._tensor((1, known, facts.width))
        self._newest = self._tensor((1, 1, facts.width))
        self._output = self._tensor((1, facts.outputs), "cpu")
        copies = 2 if facts.mode == "carry" else 1
        self._states = [self._tensors(facts.states.items()) for _ in range(copies)]
        shapes = [(entry.name, entry.shape) for entry in facts.bank]
        self._bank = [self._tensors(shapes) for _ in range(2)]
        self._runs: dict[str, tuple[_Graph, list[Any]]] = {}
        for role in facts.roles:
            graph = _Graph(runtime, provider, bytes(graphs[role]))
            self._runs[role] = graph, [graph.bound(*self._sides(role, copy)) for copy in (0, 1)]

    def _tensor(self, shape: tuple[int, ...], device: str = "") -> Any:
        zeros = np.zeros(shape, np.float32)
        value = self._value.ortvalue_from_shape_and_type(
            list(shape), np.float32, device or self._device, 0
        )
        value.update_inplace(zeros)
        return value

    def _tensors(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
        return {name: self._tensor(shape) for name, shape in shapes}

    def _sides(self, role: str, copy: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and outputs of a graph that reads that buffer."""
        facts = self._facts
        states = self._states[copy % len(self._states)]
        answer = {facts.output: self._output}
        if role == "full":
            return {facts.input: self._known}, answer
        if role == "step":
            return {facts.newest: self._newest, **states}, answer
        if role == "pre":
            return {facts.input: self._known}, states
        if facts.mode == "carry":
            following = {f"{n}_next": v for n, v in self._states[1 - copy].items()}
            return {facts.newest: self._newest, **states}, following
        moved = {e.following: self._bank[1 - copy][e.name] for e in facts.bank}
        return {facts.newest: self._newest, **self._bank[copy]}, {**moved, **states}

    def _run(self, role: str, copy: int) -> None:
        graph, bindings = self._runs[role]
        graph.run(bindings[copy])

    def begin(self) -> None:
        """The bank is at its start again."""
        for entry, values in zip(self._facts.bank, self._starts):
            self._bank[0][entry.name].update_inplace(values)

    def prepare(self, first: int, copy: int) -> None:
        """States from the known rows; for a whole window, these rows where it is read."""
        rows = self.history[first : first + self._facts.window - 1]
        if self._facts.mode == "whole":
            self._window[0, :-1] = rows
            return
        self._known.update_inplace(np.ascontiguousarray(rows[None]))
        self._run("pre", copy)

    def step(self, row: Floats, copy: int, out: Floats) -> None:
        """The outputs of the newest row."""
        if self._facts.mode == "whole":
            self._window[0, -1] = row
            self._known.update_inplace(self._window)
            self._run("full", 0)
        else:
            self._newest.update_inplace(row[None, None])
            self._run("step", copy)
        out[:] = self._output.numpy()[0]

    def advance(self, row: Floats, parity: int) -> None:
        """The row into the other buffer."""
        self._newest.update_inplace(row[None, None])
        self._run("advance", parity)

    def stats(self) -> dict[str, Any]:
        """The provider."""
        return {"provider": self._provider}

    def close(self) -> None:
        """Release the sessions and their tensors."""
        self._runs.clear()


def warm() -> None:
    """Import it. Raises HostError where it has no CUDA provider."""
    _runtime(CUDA)


def look(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Its version (None where it or the provider is not here, and why) and the GPUs."""
    found: dict[str, Any] = {
        "version": None,
        "platform": platform_name(),
        "gpus": [[gpu.index, gpu.name, gpu.arch, gpu.driver] for gpu in gpus()],
        "builds": "",
    }
    try:
        found["version"] = _runtime(CUDA).__version__
    except HostError as error:
        found["builds"] = str(error)
    return found


def load(payloads: Payloads, facts: Mapping[str, Any]) -> StreamKernel:
    """The kernel of a model's graphs, on the provider that the facts name.

    Raises:
        HostError: as `OrtGraphs`, or the facts are damaged.
    """
    stream = StreamFacts.read(facts["stream"])
    provider = str(facts.get("provider", CUDA))
    if provider not in _DEVICES:
        raise HostError(f"provider {provider!r}: expected {' or '.join(_DEVICES)}")
    if not gpus() and provider == CUDA:
        _runtime(provider)  # what is not installed is said first
        raise HostError(f"no GPU here: {provider} cannot run")
    starts = stream.starts(payloads[facts["starts"]]) if stream.bank else []
    engines = facts["engines"]
    graphs = {role: payloads[engines[role]] for role in stream.roles}
    return StreamKernel(stream, OrtGraphs(provider, stream, graphs, starts))
