"""Plans built, checked and run offline in a host, under the interpreter that has the library.

Entry points: `Library` (a host, and what it found), `PlanOpener`, `PlanBuilder`
(`engines.bundle.toolchain`), `default_cache`.

Invariants: the library is never imported in this process; the graph is made readable for its parser
here, where ONNX is. A host ends with the object that started it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from onnx import ModelProto

from tickrt.engines.bundle.machine import Gpu, Here
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Array, Feed, Run
from tickrt.engines.tensorrt.expand import expand, operators, with_shapes
from tickrt.engines.tensorrt.profiles import make_profiles
from tickrt.environment import cache_folder
from tickrt.errors import BuildError, ConfigError
from tickrt.host.process import HostProcess
from tickrt.host.workshop import pack_tensors, unpack_tensors

__all__ = ["Library", "PlanBuilder", "PlanOpener", "default_cache"]

_RTX: Final = "tensorrt_rtx"
_WORKSPACE: Final = {"attention": 2 << 30}
_WORKSPACE_DEFAULT: Final = 512 << 20
_RESULTS: Final = {"valid": "ok", "suboptimal": "ok", "unknown": "not checked"}
_ROUNDS: Final = 3  # a body may be made of operators that are lacking as well
_LOOK_S: Final = 300.0


def default_cache(library: str, version: str, arch: str) -> Path:
    """The timing cache of a GPU and library version, in the user's cache folder."""
    return cache_folder("timing") / f"{library}-{version}-sm{arch}.cache"


class Library:
    """One TensorRT in a host process of its own.

    Args:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        python: the interpreter that has it; empty: ours.

    Attributes:
        version: of the library; empty where it is not installed.
        why_not: why it cannot build; empty where it can.
        typed: precision is what the graph's types say.
        precisions: what it can compute in.
        here: its version and the GPUs, as the host sees them.

    Raises:
        ConfigError: `python` is no interpreter.
        HostError: the host does not start, or ends.
    """

    def __init__(self, name: str, python: str = "") -> None:
        self.name, self.python = name, python
        self.host = HostProcess(python)
        self._close = weakref.finalize(self, self.host.close)
        facts = self.host.request("look", timeout_s=_LOOK_S, format=name)
        self.version, self.why_not = str(facts["version"] or ""), str(facts["builds"])
        self.typed, self.precisions = bool(facts["typed"]), tuple(facts["precisions"])
        found = tuple(Gpu(*gpu) for gpu in facts["gpus"])
        libraries = {name: self.version} if self.version else {}
        self.here = Here(found, libraries, str(facts["platform"]))
        self._lacks: dict[tuple[str, ...], set[str]] = {}

    def lacks(self, names: tuple[str, ...]) -> set[str]:
        """Those of the operators that its parser cannot read. Raises BuildError."""
        if names not in self._lacks:
            asked = list(names)
            facts = self.host.request("look", timeout_s=_LOOK_S, format=self.name, operators=asked)
            self._lacks[names] = set(facts["lacks"])
        return self._lacks[names]

    def close(self) -> None:
        """End the host."""
        self._close()


class PlanOpener:
    """Checks and runs plans of one library (`bundle.toolchain.EngineOpener`).

    Raises:
        BuildError: the library is not installed there.
        ConfigError, HostError: as `Library`.
    """

    def __init__(self, name: str, python: str = "") -> None:
        self.bindings = Library(name, python)
        if not self.bindings.version:
            self.bindings.close()
            raise BuildError(self.bindings.why_not)

    def check(self, data: bytes) -> tuple[str, str]:
        """The library's own verdict, where it has one."""
        library = self.bindings
        answer, _ = library.host.exchange("check", data, _LOOK_S, format=library.name)
        verdict, reasons = str(answer["verdict"]), answer["reasons"]
        return _RESULTS.get(verdict, "failed"), ", ".join(reasons) or verdict

    def runner(self, data: bytes) -> Run:
        """The plan on this machine's GPU. Raises EngineError where it does not load."""
        library = self.bindings
        answer, _ = library.host.exchange("open", data, _LOOK_S, format=library.name)

        def run(feed: Feed) -> dict[str, Array]:
            said, content = pack_tensors(dict(feed))
            found, outputs = library.host.exchange(
                "run", content, format=library.name, engine=answer["engine"], tensors=said
            )
            return unpack_tensors(found["tensors"], outputs)

        return run

    def why_not_here(self, built: Builder) -> str:
        """Why this machine cannot run the engines; empty when it can."""
        here = self.bindings.here.gpus
        if not here:
            return "no GPU on this machine"
        arch = here[0].arch
        if arch not in built.gpu_arch:
            return f"this machine's GPU is {arch}, the engine is for {', '.join(built.gpu_arch)}"
        return ""


class PlanBuilder(PlanOpener):
    """Builds plans (`bundle.toolchain.EngineBuilder`).

    Args:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        python: the interpreter that has it; empty: ours.
        asked: GPU architectures to build for; none: this machine's.

    Raises:
        BuildError: the library is not installed there, or only its runtime is.
        ConfigError, HostError: as `Library`.
    """

    backend = "tensorrt"
    suffix = "plan"
    splits = False
    skips_prefix = True
    options = ("profiles", "workspace", "level", "sparse", "refit", "version_compatible")

    def __init__(self, name: str, python: str = "", asked: tuple[str, ...] = ()) -> None:
        super().__init__(name, python)
        self.asked = asked
        if self.bindings.why_not:
            raise BuildError(self.bindings.why_not)

    @property
    def library(self) -> str:
        """``tensorrt`` or ``tensorrt_rtx``."""
        return self.bindings.name

    @property
    def version(self) -> str:
        """The library's."""
        return self.bindings.version

    @property
    def typed(self) -> bool:
        """Whether precision is written into the graph; else the builder is told."""
        return self.bindings.typed

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the library can compute in."""
        return self.bindings.precisions

    @property
    def format(self) -> str:
        """The library's name: neither reads the other's plans."""
        return self.bindings.name

    @property
    def driver(self) -> str | None:
        """Only an engine that was tuned on this machine's GPU is tied to its driver."""
        here = self.bindings.here.gpus
        return here[0].driver if here and self.library != _RTX else None

    @property
    def reproducible(self) -> str:
        """Neither library promises it."""
        if self.library == _RTX:
            return "not always: the library numbers some kernels differently from build to build"
        return "no: tactics are chosen by timing them"

    def targets(self) -> tuple[str, ...]:
        """Those asked for, else this machine's GPU."""
        if self.asked:
            return self.asked
        here = self.bindings.here.gpus
        if not here:
            if self.library == _RTX:
                why = "without a GPU: name one to build for, as --target 8.9"
            else:
                why = (
                    "builds for the GPU of this machine, and there is none; --target builds ahead "
                    "of time, for RTX GPUs"
                )
            raise ConfigError(f"{self.library} {why}")
        return (here[0].arch,)

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """Build one graph into a plan.

        Raises:
            BuildError: the model cannot be read or built; names the layer where the library does.
            HostError: the host ended.
        """
        library, targets = self.bindings, self.targets()
        cache = order.timing_cache or default_cache(self.library, self.version, targets[0])
        profiles = make_profiles(order.inputs, order.profiles)
        model, open_ = order.model, profiles
        if len(profiles) == 1 and all(low == high for low, _, high in profiles[0].values()):
            # One shape: nothing is open, and the builder need not be told.
            model, open_ = with_shapes(model, {n: s for n, (s, _, _) in profiles[0].items()}), ()
        model = self._readable(model)
        options = {
            "targets": targets if self.library == _RTX else (),
            "profiles": open_,
            "workspace": order.workspace or _WORKSPACE.get(order.kind, _WORKSPACE_DEFAULT),
            "level": order.level,
            "sparse": order.sparse,
            "refit": order.refit,
            "version_compatible": order.version_compatible,
            "precision": order.precision,
            "timing_cache": str(cache),
        }
        data = model.SerializeToString(deterministic=True)
        facts, plan = library.host.build(library.name, data, options, progress)
        if facts["problems"]:
            raise self._unreadable(model, facts["problems"])
        warnings = tuple(str(text) for text in facts["warnings"])
        before, after = int(facts["layers_before"]), facts["layers_after"]
        return MadeEngine(bytes(plan), before, after, profiles, warnings)

    def _readable(self, model: ModelProto) -> ModelProto:
        """The graph in operators that the library's parser knows, as far as ONNX can say it."""
        for _ in range(_ROUNDS):
            lacking = self.bindings.lacks(operators(model))
            expanded = expand(model, lacking) if lacking else model
            if expanded is model:
                break
            model = expanded
        return model

    def _unreadable(self, model: ModelProto, problems: Sequence[dict[str, Any]]) -> BuildError:
        """What the parser could not read, node by node."""
        nodes, lines = model.graph.node, []
        for problem in problems:
            index, name, operator = (problem[key] for key in ("node", "name", "operator"))
            if not name and 0 <= index < len(nodes):
                name, operator = nodes[index].name, nodes[index].op_type
            lines.append(f"layer {name!r} ({operator or '?'}): {problem['text']}")
        return BuildError(
            f"{self.library} {self.version} cannot read the model: {'; '.join(lines)}"
        )
