"""TensorRT plans in the host: one recorded CUDA graph for each thing that is launched.

Entry points: `TENSORRT` and `TENSORRT_RTX`, kernels as `registry` asks for them (`warm`, `load`),
which also build (`look`, `build`, `open`): what a host does for a build in another interpreter.

The newest row lies in pinned memory that the plans read in place; states and banks lie in the GPU's
memory and go from plan to plan without a copy. A graph is recorded once, at load, for the one shape
that a stream has, and never again. The one on the path ends with what hands the outputs over
(`answer`).

Invariants: an answer is taken only with the stamp of its own launch. A plan that refuses to run, or
cannot be recorded, is an error of `load`, and no graph of it is left. Every buffer is allocated at
load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.bundle.machine import gpus, platform_name
from tickrt.errors import BuildError, HostError
from tickrt.host.cuda import CudaError, Graph, open_device
from tickrt.host.kernels.answer import Answer, Memory, wait_for
from tickrt.host.kernels.registry import Payloads
from tickrt.host.kernels.stream import Floats, StreamFacts, StreamKernel
from tickrt.host.tensorrt.builder import EngineOptions, build_engine, lacking
from tickrt.host.tensorrt.plans import PlanEngine, PlanRunner, plan_validity
from tickrt.host.tensorrt.versions import LIBRARIES, Library, find_library, find_runtime

__all__ = ["TENSORRT", "TENSORRT_RTX", "PlanGraphs", "Plans"]


class PlanGraphs:
    """A model's plans on one GPU (`stream.Graphs`).

    Args:
        library: what runs them.
        facts: the model.
        plans: by role.
        starts: start values of the bank.

    Raises:
        HostError, IncompatibleError: a plan is refused, or reads what nobody has.
        CudaError: the driver refuses something; names the call.
    """

    def __init__(
        self,
        library: Library,
        facts: StreamFacts,
        plans: Mapping[str, memoryview],
        starts: list[Floats],
    ) -> None:
        self._facts, self._device = facts, open_device()
        self._memory = Memory(self._device)
        self._graphs: dict[tuple[str, int], Graph] = {}
        self._plans: dict[str, PlanEngine] = {}
        self._answer: Answer | None = None
        try:
            for role in facts.roles:
                self._plans[role] = PlanEngine(library, plans[role])
            self._allocate(starts)
            self._record_all()
        except BaseException:
            with suppress(Exception):  # what failed says more than what cannot be undone
                self.close()
            raise

    def _dtype(self, name: str) -> Any:
        """The type of a tensor, in which all plans that have it agree."""
        found = {
            side[name]
            for plan in self._plans.values()
            for side in (plan.inputs, plan.outputs)
            if name in side
        }
        if len(found) > 1:
            kinds = " and ".join(sorted(np.dtype(kind).name for kind in found))
            raise HostError(f"the plans disagree about {name!r}: {kinds}; build them together")
        return np.dtype(found.pop() if found else np.float32)

    def _allocate(self, starts: list[Floats]) -> None:
        facts, memory = self._facts, self._memory
        for name in (facts.input, facts.newest, facts.output):
            if name and self._dtype(name) != np.float32:
                raise HostError(f"tensor {name!r} is {self._dtype(name)}, expected float32")
        row_bytes = 4 * facts.width
        self._newest = memory.shared(row_bytes)
        self._row = self._newest.view[:row_bytes].view(np.float32)
        ring = memory.shared(2 * facts.window * row_bytes)
        self._ring = ring
        self.history = ring.view[: 2 * facts.window * row_bytes].view(np.float32)
        self.history = self.history.reshape(2 * facts.window, facts.width)
        self._known = memory.on_gpu(facts.window * row_bytes)  # a whole window ends with a row more
        self._answer = Answer(self._device, memory, facts.outputs)
        copies = 2 if facts.mode == "carry" else 1
        self._states = [
            {n: memory.on_gpu(self._size(n, shape)) for n, shape in facts.states.items()}
            for _ in range(copies)
        ]
        self._bank = [
            {e.name: memory.on_gpu(self._size(e.name, e.shape)) for e in facts.bank}
            for _ in range(2)
        ]
        self._starts = [
            (e.name, memory.upload(values.astype(self._dtype(e.name))), self._size(e.name, e.shape))
            for e, values in zip(facts.bank, starts)
        ]
        self._device.settle()

    def _size(self, name: str, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape)) * int(self._dtype(name).itemsize)

    def _addresses(self, role: str, copy: int) -> dict[str, int]:
        """Where the tensors of a plan lie; `copy`: of the states, or the buffer that is read."""
        facts = self._facts
        states = self._states[copy if facts.mode == "carry" else 0]
        assert self._answer is not None
        output = {facts.output: self._answer.output}
        if role == "full":
            return {facts.input: self._known, **output}
        if role == "step":
            return {facts.newest: self._newest.device, **states, **output}
        if role == "pre":
            return {facts.input: self._known, **states}
        found = {facts.newest: self._newest.device, **states}
        if facts.mode == "carry":
            return {**found, **{f"{n}_next": a for n, a in self._states[1 - copy].items()}}
        for entry in facts.bank:
            found[entry.name] = self._bank[copy][entry.name]
            found[entry.following] = self._bank[1 - copy][entry.name]
        return found

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of everything that a plan may read."""
        facts = self._facts
        rows = facts.window if facts.mode == "whole" else facts.window - 1
        found = {facts.input: (1, rows, facts.width), facts.newest: (1, 1, facts.width)}
        return {**found, **facts.states, **{entry.name: entry.shape for entry in facts.bank}}

    def _bind(self, role: str, copy: int) -> PlanEngine:
        plan, addresses, shapes = self._plans[role], self._addresses(role, copy), self._shapes()
        for name in (*plan.inputs, *plan.outputs):
            if name not in addresses:
                raise HostError(f"its plan `{role}` has a tensor {name!r} that the model has not")
            plan.bind(name, addresses[name])
        for name in plan.inputs:
            plan.set_shape(name, shapes[name])
        return plan

    def _record(self, role: str, copy: int) -> None:
        """One launch as it is, then the same as a graph, which is launched once as well."""
        device, facts = self._device, self._facts
        plan = self._bind(role, copy)
        answer = self._answer if role in ("full", "step") else None
        last = self._known + 4 * facts.width * (facts.window - 1)

        def work() -> None:
            if role == "full":
                device.copy_in(last, self._newest.address, 4 * facts.width)
            plan.enqueue(device.stream)
            if answer is not None:
                answer.launch()

        def launched() -> None:
            device.wait()
            if answer is not None:
                answer.launched()
                answer.check()

        device.wait()
        work()  # what a library does at the first run must not be in a recording
        launched()
        graph = device.record(work)
        self._graphs[role, copy] = graph
        graph.upload()
        graph.launch()
        launched()

    def _record_all(self) -> None:
        mode = self._facts.mode
        for role in self._facts.roles:
            twice = mode == "carry" or role == "advance"
            for copy in range(2 if twice else 1):
                self._record(role, copy)
        role = "full" if mode == "whole" else "step"
        self._on_path = [graph for (name, _), graph in self._graphs.items() if name == role]
        self.begin()
        self._device.wait()

    def begin(self) -> None:
        """The bank is at its start again."""
        for name, address, size in self._starts:
            self._device.copy_within(self._bank[0][name], address, size)

    def prepare(self, first: int, copy: int) -> None:
        """States from the known rows; for a whole window, these rows where it is read."""
        facts = self._facts
        row_bytes = 4 * facts.width
        source = self._ring.address + first * row_bytes
        self._device.copy_in(self._known, source, (facts.window - 1) * row_bytes)
        if facts.mode != "whole":
            self._graphs["pre", copy].launch()
        wait_for(self._device)

    def step(self, row: Floats, copy: int, out: Floats) -> None:
        """Launch, and look at the stamp until it is that of this launch."""
        answer = self._answer
        assert answer is not None
        self._row[:] = row
        answer.launched()
        self._on_path[copy].launch()
        answer.wait()
        out[:] = answer.values

    def advance(self, row: Floats, parity: int) -> None:
        """The row into the other buffer."""
        self._row[:] = row
        self._graphs["advance", parity].launch()
        wait_for(self._device)  # so that no buffer is written that the GPU still reads

    def stats(self) -> dict[str, Any]:
        """Nodes of each graph, launches of those that answer, and how their end is seen."""
        nodes = {f"{role}_{copy}": graph.nodes for (role, copy), graph in self._graphs.items()}
        assert self._answer is not None
        seen = "stamp" if self._answer.stamped else "stream"
        return {"graph_nodes": nodes, "launches": self._answer.launches, "completion": seen}

    def close(self) -> None:
        """Give the GPU back what is ours."""
        with suppress(CudaError):  # after a failed kernel every call fails: the rest is tried still
            self._device.wait()
        while self._graphs:
            self._graphs.popitem()[1].close()
        while self._plans:
            self._plans.popitem()[1].close()
        if self._answer is not None:
            self._answer.close()
        self._memory.close()


class Plans:
    """Plans of one library: runs, builds and checks them in this process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: dict[str, PlanRunner] = {}

    def warm(self) -> None:
        """Bring CUDA up, import the library, have it make an engine of nothing."""
        device = open_device()
        device.fill(device.scratch(), 0, 4)
        device.wait()
        find_runtime(self._name)

    def load(self, payloads: Payloads, facts: Mapping[str, Any]) -> StreamKernel:
        """The kernel of a model's plans.

        Raises:
            HostError, IncompatibleError: as `PlanGraphs`, or the library is not here.
        """
        stream = StreamFacts.read(facts["stream"])
        library = find_runtime(self._name)
        engines = facts["engines"]
        if missing := [role for role in stream.roles if role not in engines]:
            raise HostError(f"the model runs in mode {stream.mode} and has no plan {missing[0]!r}")
        starts = stream.starts(payloads[facts["starts"]]) if stream.bank else []
        plans = {role: payloads[engines[role]] for role in stream.roles}
        return StreamKernel(stream, PlanGraphs(library, stream, plans, starts))

    def look(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What there is: the library, what it can do, which of the operators it lacks, the GPUs.

        Args:
            asked: ``operators``, names of ONNX operators; none: its parser is left alone.

        Raises:
            BuildError: operators were named and the library cannot be asked.
        """
        found: dict[str, Any] = {
            "version": None,
            "platform": platform_name(),
            "gpus": [[gpu.index, gpu.name, gpu.arch, gpu.driver] for gpu in gpus()],
            "builds": "",
            "typed": True,
            "precisions": [],
            "lacks": [],
        }
        try:
            library = find_library(self._name)
        except BuildError as error:
            found["builds"] = str(error)
            with suppress(HostError):  # it cannot be run either: there is no version to tell
                found["version"] = find_runtime(self._name).version
            return found
        found |= {"version": library.version, "typed": library.typed}
        found["precisions"] = list(library.precisions)
        if operators := [str(name) for name in asked.get("operators", [])]:
            found["lacks"] = lacking(library, operators)
        return found

    def build(
        self,
        model: memoryview,
        options: Mapping[str, Any],
        progress: Callable[[str, int, int], None],
    ) -> tuple[dict[str, Any], bytes]:
        """A plan of ONNX bytes, and what there is to say of it.

        Args:
            options: fields of `builder.EngineOptions`.

        Raises:
            BuildError: the library is not here, or cannot build the model.
        """
        library = find_library(self._name)
        given = {**options, "targets": tuple(options.get("targets", ()))}
        given["profiles"] = tuple(options.get("profiles", ()))
        plan = build_engine(library, bytes(model), EngineOptions(**given), progress)
        facts = {
            "layers_before": plan.layers_before,
            "layers_after": plan.layers_after,
            "seconds": plan.seconds,
            "warnings": list(plan.warnings),
            "problems": list(plan.problems),
        }
        return facts, plan.data

    def validity(self, plan: memoryview) -> tuple[str, list[str]]:
        """The library's own verdict, where it has one (`plans.plan_validity`)."""
        return plan_validity(find_library(self._name), bytes(plan))

    def open(self, plan: memoryview) -> str:
        """Load a plan for `run`; what to call it by."""
        key = hashlib.sha256(plan).hexdigest()
        if key not in self._open:
            self._open[key] = PlanRunner(find_runtime(self._name), plan)
        return key

    def run(self, key: str, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """An opened plan's outputs. Raises HostError: there is none of that name."""
        if key not in self._open:
            raise HostError("no such plan is open here")
        return self._open[key].run(feed)


TENSORRT, TENSORRT_RTX = (Plans(name) for name in LIBRARIES)
