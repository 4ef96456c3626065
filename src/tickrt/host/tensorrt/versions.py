"""Which TensorRT this interpreter has, and what it can do: asked of its bindings, by name.

Entry points: `find_library` (to build), `find_runtime` (to run plans), `Library`.

Invariants: no release is compared with another: what a library has is what its module names. So
8.5, where precision is a flag of the builder, and 11, where it is a type in the graph, go through
the same code.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tickrt.errors import BuildError, HostError

__all__ = ["LIBRARIES", "Library", "find_library", "find_runtime", "members"]

LIBRARIES = ("tensorrt", "tensorrt_rtx")
# A module that only runs plans stands in for its library.
_RUNTIMES = {"tensorrt": ("tensorrt", "tensorrt_lean"), "tensorrt_rtx": ("tensorrt_rtx",)}
_FLAGS = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}


def members(trt: Any, enumeration: str) -> dict[str, Any]:
    """The members of an enumeration by name; empty where the library does not have it."""
    found = getattr(trt, enumeration, None)
    return dict(getattr(found, "__members__", {}))


@dataclass(frozen=True)
class Library:
    """An imported TensorRT: `name` is ``tensorrt`` or ``tensorrt_rtx``."""

    name: str
    version: str
    trt: Any

    @property
    def is_rtx(self) -> bool:
        """It compiles for GPUs that are not here."""
        return self.name == "tensorrt_rtx"

    @property
    def builds(self) -> bool:
        """It is more than a runtime."""
        return hasattr(self.trt, "Builder") and hasattr(self.trt, "OnnxParser")

    @property
    def typed(self) -> bool:
        """Precision is what the graph's types say; else it is a flag of the builder."""
        return "STRONGLY_TYPED" in members(self.trt, "NetworkDefinitionCreationFlag")

    @property
    def network_flags(self) -> int:
        """What a network has to be created with."""
        flags = members(self.trt, "NetworkDefinitionCreationFlag")
        name = "STRONGLY_TYPED" if self.typed else "EXPLICIT_BATCH"
        return 1 << int(flags[name]) if name in flags else 0

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it can compute in."""
        if self.typed:
            return ("fp32", *_FLAGS)
        flags = members(self.trt, "BuilderFlag")
        return ("fp32", *(name for name, flag in _FLAGS.items() if flag in flags))

    def flag(self, name: str, wanted_by: str) -> Any:
        """A builder flag. Raises BuildError where this release does not have it."""
        flags = members(self.trt, "BuilderFlag")
        if name not in flags:
            raise BuildError(f"{wanted_by}: {self.name} {self.version} does not have it; drop it")
        return flags[name]


def _import(names: Iterable[str]) -> tuple[Any, list[str]]:
    """The first module that can be imported, or None; and why the others cannot."""
    tried: list[str] = []
    for name in names:
        try:
            return importlib.import_module(name), tried
        except (ImportError, OSError, RuntimeError) as error:  # a library that it links to
            tried.append(f"{name}: {error}")
    return None, tried


def find_library(name: str) -> Library:
    """The library of that name, to build with.

    Raises:
        BuildError: it is not installed, or only its runtime is; says what to install.
    """
    found, tried = _import((name,))
    library = None if found is None else Library(name, str(found.__version__), found)
    if library is not None and library.builds:
        return library
    why = "; ".join(tried) or "only its runtime is here"
    extra = "rtx" if name == "tensorrt_rtx" else "tensorrt"
    raise BuildError(
        f"{name} is not installed ({why}); pip install 'tickrt[{extra}]', or name an interpreter "
        "that has it: --engine-python"
    )


def find_runtime(name: str) -> Library:
    """The library of that name, to run plans with; its runtime alone is enough.

    Raises:
        HostError: it is not installed.
    """
    found, tried = _import(_RUNTIMES.get(name, (name,)))
    if found is None:
        raise HostError(
            f"{name} is not installed ({'; '.join(tried)}); name an interpreter that has it: "
            "--engine-python"
        )
    return Library(name, str(found.__version__), found)
