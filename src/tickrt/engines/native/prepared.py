"""A model as compiled code that was found to be exact, once, and is then kept on disk.

Entry points: `prepare(model, plan)` → `Prepared`; `kept` and `keep` for one that comes otherwise.

Kept are the source, the object and what the comparison found, under the digest of the program, the
source, the compiler and the processor. Whatever is damaged there is made again; several processes
may do so at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import open_session, ort_version
from tickrt.engines.native.compiler import (
    cpu_digest,
    find_compiler,
    has_wide_registers,
    why_not,
)
from tickrt.engines.native.kernel import Kernel
from tickrt.engines.native.source import Native, generate
from tickrt.engines.native.verify import LIMITS, Errors, Parity, verify
from tickrt.engines.split.plan import SplitPlan
from tickrt.engines.translate import stream_program
from tickrt.environment import cache_folder
from tickrt.errors import BuildError
from tickrt.files import new_folder
from tickrt.program import to_bytes

__all__ = ["Prepared", "digest_of", "keep", "kept", "prepare"]

Array = NDArray[np.float32]
_SOURCE, _OBJECT, _FACTS = "program.c", "program.so", "facts.json"


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to run.

    Attributes:
        parity: what was compared when it was made, and the errors.
        weights: their type, where they are large and read on the path.
        folder: where source and object are.
    """

    kernel: Kernel
    parity: Parity
    compiler: str
    weights: str
    folder: Path


def digest_of(*parts: bytes) -> str:
    """SHA-256 over the digests of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _expected(model: LoopModel, plan: SplitPlan | None) -> Callable[[Array], Array]:
    """The model in ONNX Runtime: the whole one, or its split where a bundle has only that."""
    if model.content:
        whole = open_session(model.content)
        return lambda windows: np.concatenate(
            [whole.run([model.output], {model.input: w[np.newaxis]})[0] for w in windows]
        )
    assert plan is not None  # a bundle without a whole model is split
    pre, step = open_session(plan.pre), open_session(plan.step)
    names = [name for name, _ in plan.states]

    def one(window: Array) -> Array:
        states = pre.run(names, {plan.known: window[np.newaxis, :-1]})
        feeds = dict(zip(names, states, strict=True))
        answer: Array = step.run([model.output], {plan.newest: window[np.newaxis, -1:], **feeds})[0]
        return answer

    return lambda windows: np.concatenate([one(window) for window in windows])


def kept(native: Native, folder: Path, compiler: str, weights: str) -> Prepared | None:
    """What is kept in `folder`; None where that is nothing, or damaged."""
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if digest_of((folder / _OBJECT).read_bytes()) != facts["object"]:
            return None
        parity = Parity(**facts["parity"] | {"errors": Errors(**facts["parity"]["errors"])})
        return Prepared(Kernel(native, folder / _OBJECT), parity, compiler, weights, folder)
    except (OSError, ValueError, KeyError, TypeError, BuildError):
        return None


def keep(
    native: Native, folder: Path, compiler: str, weights: str, make: Callable[[Path], Parity]
) -> Prepared:
    """Make the object and keep it in `folder`, with its source.

    Args:
        make: writes the object at that path, beside its source; what a comparison of it found.

    Raises:
        BuildError: it cannot be made, or the cache folder cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with new_folder(folder) as new:
            (new / _SOURCE).write_text(native.source, encoding="utf-8")
            parity = make(new / _OBJECT)
            facts = {"object": digest_of((new / _OBJECT).read_bytes()), "parity": asdict(parity)}
            (new / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{folder}: cannot keep the compiled program: {error}") from error
    prepared = kept(native, folder, compiler, weights)
    if prepared is None:
        raise BuildError(f"{folder}: what was kept is damaged: is the disk full?")
    return prepared


def prepare(model: LoopModel, plan: SplitPlan | None, weights: str = "fp32") -> Prepared:
    """The model's compiled program, from the cache or made now.

    Args:
        model: a checked model.
        plan: its split, where it is to run split.
        weights: type of large weight matrices on the path: ``fp32``, ``bf16``, ``int8``.

    Raises:
        TranslateError: it cannot be generated; names the operator.
        BuildError: there is no compiler, it failed, or the result is not exact.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(why_not())
    native = generate(stream_program(model, plan), weights, has_wide_registers())
    parts = [native.source, weights, compiler.path, compiler.version, " ".join(compiler.flags)]
    parts += [cpu_digest(), ort_version()]
    key = digest_of(to_bytes(native.original), *(part.encode() for part in parts))
    folder = cache_folder("native") / key[:32]
    carried = plan is not None and plan.mode == "carry"

    def make(path: Path) -> Parity:
        compiler.build(path.with_suffix(".c"), path)
        expected = _expected(model, plan)
        return verify(Kernel(native, path), expected, LIMITS[weights], carried=carried)

    found = kept(native, folder, compiler.version, weights)
    prepared = found or keep(native, folder, compiler.version, weights, make)
    if prepared.parity.why_not:
        raise BuildError(prepared.parity.why_not)
    return prepared
