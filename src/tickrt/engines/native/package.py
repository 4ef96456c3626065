"""A compiled program as one piece of data, as a bundle holds it.

Entry points: `pack(prepared, split)`, `unpack(data, where)`.

In it: the program with its weights, the C source, the object and the processor that it was made
for. On another processor the source is compiled anew, and compared with the program.

Invariants: an object is executed as it is, so the bundle's signature must have been verified;
`read` executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickrt.engines.native.compiler import (
    cpu_digest,
    cpu_name,
    find_compiler,
    has_wide_registers,
    why_not,
)
from tickrt.engines.native.kernel import Kernel
from tickrt.engines.native.prepared import Prepared, digest_of, kept_or_made
from tickrt.engines.native.source import Native, generate
from tickrt.engines.native.verify import LIMITS, Errors, Parity, verify
from tickrt.engines.split.plan import SplitPlan
from tickrt.environment import cache_folder
from tickrt.errors import BuildError, BundleError, EngineError, IncompatibleError
from tickrt.program import from_bytes, to_bytes

__all__ = ["Package", "pack", "read", "split_figures", "unpack"]

_MAGIC = b"tickrt-native 1\n"


@dataclass(frozen=True)
class Package:
    """What was read.

    Attributes:
        head: processor, compiler, type of weights, parity, and what the split does.
    """

    program: bytes
    source: str
    object: bytes
    head: Mapping[str, Any]


def split_figures(split: SplitPlan | None) -> dict[str, Any] | None:
    """What an engine says of its split."""
    if split is None:
        return None
    return {
        "split": split.mode,
        "on_path_share": split.figures["on_path_share"],
        "split_error": split.figures["parity"]["max_rel"],
    }


def pack(prepared: Prepared, split: SplitPlan | None) -> bytes:
    """The compiled program as data."""
    native = prepared.kernel.native
    parts = [
        to_bytes(native.original),
        native.source.encode(),
        (prepared.folder / "program.so").read_bytes(),
    ]
    head = {
        "sizes": [len(part) for part in parts],
        "cpu": cpu_digest(),
        "cpu_name": cpu_name(),
        "compiler": prepared.compiler,
        "weights": prepared.weights,
        "wide": has_wide_registers(),
        "parity": asdict(prepared.parity),
        "figures": split_figures(split),
    }
    return b"".join([_MAGIC, json.dumps(head, sort_keys=True).encode(), b"\n", *parts])


def read(data: bytes, where: str) -> Package:
    """The parts of a package; executes nothing.

    Raises:
        BundleError: it is none, or damaged.
    """
    if not data.startswith(_MAGIC):
        raise BundleError(f"{where}: not a compiled program of this version: build it again")
    end = data.find(b"\n", len(_MAGIC))
    try:
        head = json.loads(data[len(_MAGIC) : end])
        at, parts = end + 1, []
        for size in head["sizes"]:
            parts.append(data[at : at + int(size)])
            at += int(size)
        if at != len(data):
            raise ValueError(f"{len(data)} bytes, expected {at}")
        program, source, content = parts
        from_bytes(program)
        return Package(program, source.decode(), content, head)
    except (KeyError, TypeError, ValueError, EngineError) as error:
        raise BundleError(f"{where}: the compiled program is damaged: {error}") from error


def unpack(data: bytes, where: str) -> tuple[Prepared, dict[str, Any] | None]:
    """The program ready to run here, and what its split does.

    Raises:
        BundleError: it is damaged.
        IncompatibleError: another version of tickrt generated it, or it was compiled for another
            processor and there is no compiler here.
        BuildError: the compiler refuses its source, or the result is not exact.
    """
    package = read(data, where)
    head = package.head
    wanted = (str(head["compiler"]), str(head["weights"]), bool(head["wide"]))
    native = generate(from_bytes(package.program), *wanted[1:])
    rebuild = f"tickrt build --rebuild {where} -o {where} --force --backend native"
    if native.source != package.source:
        raise IncompatibleError(
            f"{where}: another version of tickrt generated its code; rebuild it with: {rebuild}"
        )
    if head["cpu"] == cpu_digest():
        prepared = _as_it_is(native, package, wanted)
    else:
        prepared = _compiled_here(native, package, where, rebuild)
    if prepared.parity.why_not:
        raise BuildError(f"{where}: {prepared.parity.why_not}")
    return prepared, head["figures"]


def _as_it_is(native: Native, package: Package, wanted: tuple[str, str, bool]) -> Prepared:
    """The object in the package, in the cache folder: only files can be loaded."""
    parity = dict(package.head["parity"])
    folder = cache_folder("native") / digest_of(package.object, package.program)[:32]

    def make(_: Native, path: Path) -> Parity:
        path.write_bytes(package.object)
        return Parity(**parity | {"errors": Errors(**parity["errors"])})

    return kept_or_made(folder, wanted, lambda: native, make)


def _compiled_here(native: Native, package: Package, where: str, rebuild: str) -> Prepared:
    head, compiler = package.head, find_compiler()
    if compiler is None:
        raise IncompatibleError(
            f"{where}: compiled for {head['cpu_name']}, here {cpu_name()}, and {why_not()}; or "
            f"rebuild it on a machine like this one with: {rebuild}"
        )
    weights = str(head["weights"])
    texts = (native.source, compiler.path, compiler.version, " ".join(compiler.flags), cpu_digest())
    key = digest_of(package.program, *(text.encode() for text in texts))

    def make(generated: Native, path: Path) -> Parity:
        compiler.build(path.with_suffix(".c"), path)
        return verify(Kernel(generated, path), None, LIMITS[weights])

    folder = cache_folder("native") / key[:32]
    wanted = (compiler.version, weights, bool(head["wide"]))
    return kept_or_made(folder, wanted, lambda: native, make)
