"""A model as compiled code that was found to be exact, once, and is then kept on disk.

Entry points: `prepare(model, plan)` → `Prepared`; `kept_or_made` for one that comes otherwise.

Kept are the program, the source, the object and what the comparison found, under the digest of the
model, of what generates its code, of the compiler and the processor: the next start does without
the translation, and without ONNX Runtime's Python package, which takes 30 MB. Whatever is damaged
there is made again; several processes may do so at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import open_session, ort_version
from tickrt.engines.native.compiler import (
    Compiler,
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
from tickrt.errors import BuildError, TickrtError
from tickrt.files import new_folder
from tickrt.program import from_bytes, to_bytes

__all__ = ["Prepared", "digest_of", "kept_or_made", "prepare"]

Array = NDArray[np.float32]
_PROGRAM, _SOURCE, _OBJECT, _FACTS = "program.bin", "program.c", "program.so", "facts.json"
_ATTEMPTS = 3


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


@cache
def _source_digest() -> str:
    """Of everything that makes the code of a model."""
    digest = hashlib.sha256()
    engines = Path(__file__).parent.parent
    for folder in (engines / "native", engines / "translate", engines.parent / "program"):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.c")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _key(model: LoopModel, plan: SplitPlan | None, weights: str, compiler: Compiler) -> str:
    parts = [model.content]
    if plan is not None:
        parts += [plan.mode.encode(), plan.pre, plan.step, plan.advance, plan.starts]
    texts = [weights, compiler.path, compiler.version, " ".join(compiler.flags)]
    texts += [cpu_digest(), ort_version(), _source_digest()]
    return digest_of(*parts, *(text.encode() for text in texts))[:32]


def kept(folder: Path, compiler: str, weights: str, wide: bool) -> Prepared | None:
    """What is kept in `folder`; None where that is nothing, or damaged."""
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        program = (folder / _PROGRAM).read_bytes()
        content = (folder / _OBJECT).read_bytes()
        if facts["digest"] != digest_of(program, content):
            return None
        native = generate(from_bytes(program), weights, wide)
        if (folder / _SOURCE).read_text(encoding="utf-8") != native.source:
            return None
        parity = Parity(**facts["parity"] | {"errors": Errors(**facts["parity"]["errors"])})
        return Prepared(Kernel(native, folder / _OBJECT), parity, compiler, weights, folder)
    except (OSError, ValueError, KeyError, TypeError, TickrtError):
        return None


def keep(native: Native, folder: Path, make: Callable[[Path], Parity]) -> None:
    """Make the object and keep it in `folder`, with program and source.

    Args:
        make: writes the object at that path, beside its source; what a comparison of it found.

    Raises:
        BuildError: it cannot be made, or the cache folder cannot be written.
    """
    try:
        with new_folder(folder) as new:
            program = to_bytes(native.original)
            (new / _PROGRAM).write_bytes(program)
            (new / _SOURCE).write_text(native.source, encoding="utf-8")
            parity = make(new / _OBJECT)
            digest = digest_of(program, (new / _OBJECT).read_bytes())
            facts = {"digest": digest, "parity": asdict(parity)}
            (new / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{folder}: cannot keep the compiled program: {error}") from error


def kept_or_made(
    folder: Path,
    wanted: tuple[str, str, bool],
    native: Callable[[], Native],
    make: Callable[[Native, Path], Parity],
) -> Prepared:
    """What is kept in `folder`, made first where it is not there or damaged.

    Args:
        wanted: compiler, type of weights, whether for wide registers.
        native: the generated program, where it has to be made.
        make: as in `keep`.

    Raises:
        BuildError: as `keep`.
    """
    for _ in range(_ATTEMPTS):  # another process may be repairing the same damage
        found = kept(folder, *wanted)
        if found is not None:
            return found
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        generated = native()
        keep(generated, folder, lambda path, n=generated: make(n, path))  # type: ignore[misc]
    raise BuildError(f"{folder}: what was kept is damaged again and again: is the disk full?")


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
    wide = has_wide_registers()
    folder = cache_folder("native") / _key(model, plan, weights, compiler)
    carried = plan is not None and plan.mode == "carry"

    def make(native: Native, path: Path) -> Parity:
        compiler.build(path.with_suffix(".c"), path)
        expected = _expected(model, plan)
        return verify(Kernel(native, path), expected, LIMITS[weights], carried=carried)

    prepared = kept_or_made(
        folder,
        (compiler.version, weights, wide),
        lambda: generate(stream_program(model, plan), weights, wide),
        make,
    )
    if prepared.parity.why_not:
        raise BuildError(prepared.parity.why_not)
    return prepared
