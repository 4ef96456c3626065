"""Resident kernels in a bundle: made where nvcc is, run where a GPU is, compared when loaded.

Entry points: `ResidentBuilder` (`bundle.toolchain.EngineBuilder`, and its own opener);
`parcel_from` (what a session's host loads, and the rows that it has to answer first).

    full.resident       the program with its weights, and what the split does
    gpu-rows.resident   the kernel for rows in the GPU's memory, where every block looks for them
    host-rows.resident  the kernel for rows in host memory, where one does
    parity.f32          rows, and the program's answers to them

Which kernel a session needs is known when its row memory is: each is there.

Invariants: the parity check of a build runs the program in NumPy beside the original ONNX, on any
machine; the GPU's answers are compared with the program's at each load. Nothing here calls CUDA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from tickrt import __version__
from tickrt.config import SessionConfig
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Array, Feed, Run
from tickrt.engines.native import split_figures
from tickrt.engines.native.source import count_operations
from tickrt.engines.resident.compile import build, compiler
from tickrt.engines.translate import stream_program
from tickrt.engines.translate.ordered import ordered
from tickrt.errors import BuildError, BundleError, ConfigError, EngineError
from tickrt.host.kernels.resident import FORMAT
from tickrt.host.memory.registry import ORDINARY
from tickrt.host.parcel import Parcel
from tickrt.program import StreamProgram, from_bytes, to_bytes
from tickrt.program.reference import Reference
from tickrt.runtime.backends.mailbox.engine import Parity
from tickrt.runtime.backends.mailbox.parcel import bundle_parcel
from tickrt.runtime.backends.resident import kernel_bytes
from tickrt.runtime.model_source import Source

__all__ = ["Package", "ResidentBuilder", "pack", "parcel_from", "read"]

GPU_ROWS, HOST_ROWS, PARITY = "gpu-rows.resident", "host-rows.resident", "parity.f32"
_MAGIC = b"tickrt-resident-bundle 1\n"
_ROWS = 32  # that are answered before a session starts
_LIMITS: Final = {"fp32": 1e-5}  # of an answer's difference, relative to the largest
_STAND_IN = "the program in NumPy, not the GPU: its host compares the two when it loads"


@dataclass(frozen=True)
class Package:
    """What ``full.resident`` holds.

    Attributes:
        facts: ``split`` (what the split does, or None), ``weights`` (their type), ``rows`` (of the
            parity payload), ``tolerance``.
    """

    program: StreamProgram
    facts: Mapping[str, Any]


def pack(program: StreamProgram, facts: Mapping[str, Any]) -> bytes:
    """A program and its facts as bytes."""
    return b"".join([_MAGIC, json.dumps(facts, sort_keys=True).encode(), b"\n", to_bytes(program)])


def read(data: bytes, where: str) -> Package:
    """What `pack` made.

    Raises:
        BundleError: it is none, or damaged.
    """
    if not data.startswith(_MAGIC):
        raise BundleError(f"{where}: not a resident kernel's program of this version: rebuild it")
    head, _, program = data[len(_MAGIC) :].partition(b"\n")
    try:
        facts = json.loads(head)
        if type(facts["rows"]) is not int or type(facts["tolerance"]) is not float:
            raise ValueError(f"rows: {facts['rows']!r}, tolerance: {facts['tolerance']!r}")
        _ = facts["weights"], facts["split"]
        return Package(from_bytes(program), facts)
    except (KeyError, TypeError, ValueError, RecursionError, EngineError) as error:
        raise BundleError(f"{where}: the program is damaged: {error}") from error


def _parity_rows(program: StreamProgram) -> tuple[Array, Array]:
    """Rows, and the program's answers; NaN where it has none yet."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((program.window + _ROWS, program.width), np.float32)
    answers = np.full((len(rows), program.outputs), np.nan, np.float32)
    reference = Reference(program)
    for i, row in enumerate(rows):
        if i + 1 >= program.window:
            answers[i] = reference.submit(i + 1, row)
        reference.advance(i + 1, row)
    if not np.isfinite(answers[program.window - 1 :]).all():
        raise BuildError("its outputs are not finite for rows of standard normal numbers")
    return rows, answers


@dataclass(frozen=True)
class ResidentBuilder:
    """Builds kernels with nvcc; no GPU is needed."""

    backend = FORMAT
    library = FORMAT
    version = __version__
    format = FORMAT
    suffix = FORMAT
    driver = None
    reproducible = "with the same nvcc"
    options = ()
    precisions = ("fp32",)
    splits = True
    typed = True
    skips_prefix = False

    def targets(self) -> tuple[str, ...]:
        """Hopper."""
        return ("9.0",)

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """The whole model, split where that is wanted and possible.

        Raises:
            TranslateError, BuildError: it cannot be generated, does not fit, or does not compile.
        """
        if not compiler()[0]:
            raise BuildError(f"--backend {FORMAT}: no nvcc on the path: install the CUDA toolkit")
        model, split = ordered(order)
        program = stream_program(model, split)
        more = {}
        for done, (name, one_poller) in enumerate(((GPU_ROWS, False), (HOST_ROWS, True))):
            if progress:
                progress("nvcc", done, 2)
            more[name] = kernel_bytes(build(program, one_poller=one_poller), program)
        rows, answers = _parity_rows(program)
        more[PARITY] = np.concatenate([rows.ravel(), answers.ravel()]).astype("<f4").tobytes()
        largest = float(np.abs(answers[program.window - 1 :]).max())
        facts = {
            "split": split_figures(split),
            "weights": "fp32",
            "rows": len(rows),
            "tolerance": _LIMITS["fp32"] * max(1.0, largest),
        }
        operations = count_operations(program)
        return MadeEngine(
            pack(program, facts),
            len(order.model.graph.node),
            operations,
            more=more,
            stand_in=_STAND_IN,
        )

    def check(self, data: bytes) -> tuple[str, str]:
        """Whether its program can be read; the kernels are the host's to check."""
        try:
            read(data, "the engine")
        except BundleError as error:
            return "failed", str(error)
        return "ok", ""

    def runner(self, data: bytes) -> Run:
        """The program in NumPy as a function of windows [n, T, F]. Raises BundleError."""
        return _Windows(read(data, "the engine").program).run

    def why_not_here(self, built: Builder) -> str:
        """Its program runs everywhere."""
        return ""


class _Windows:
    """A program on windows: what two have in common is not computed twice."""

    def __init__(self, program: StreamProgram) -> None:
        self._program, self._engine = program, Reference(program)
        # Carried states are of all rows since a reset, not of the window.
        self._going_on = program.facts["mode"] != "carry"
        self._seq = 0

    def run(self, feed: Feed) -> dict[str, Array]:
        """The outputs of every window."""
        (windows,) = feed.values()
        answers, last = [], None
        for window in windows:
            new = self._new_rows(window, last)
            if new == len(window):
                self._engine.reset()
            for row in window[-new:-1]:
                self._seq += 1
                self._engine.advance(self._seq, row)
            self._seq += 1
            answers.append(self._engine.submit(self._seq, window[-1]))
            self._engine.advance(self._seq, window[-1])
            last = window
        return {self._program.facts["output"]: np.stack(answers)}

    def _new_rows(self, window: Array, last: Array | None) -> int:
        if last is not None and self._going_on:
            for new in range(1, len(window)):
                if np.array_equal(window[:-new], last[new:]):
                    return new
        return len(window)


def parcel_from(source: Source, settings: SessionConfig, memory: str) -> tuple[Parcel, Parity]:
    """What a bundle sends to its host, and the rows to compare before it starts.

    Args:
        source: a bundle of this format, which the session has checked.
        memory: the kind of its row memory: the kernel follows from it.

    Raises:
        ConfigError: the settings ask for what the bundle does not have.
        BundleError, TamperedError: as `bundle_parcel`.
    """
    where, name = str(source.path), source.model.name
    package = read(source.model.content, where)
    program, facts = package.program, package.facts
    split = (facts["split"] or {}).get("split")
    if settings.stateful != (split == "carry"):
        raise ConfigError(
            f"{name}: it was built {'with' if split == 'carry' else 'without'} --stateful"
        )
    if split and not settings.split:
        raise ConfigError(f"{name}: the bundle was built split: build it with --no-split")
    kernel = HOST_ROWS if memory == ORDINARY else GPU_ROWS
    parcel = bundle_parcel(source, settings, (kernel, PARITY))
    values = np.frombuffer(parcel.payloads[PARITY], "<f4").astype(np.float32)
    count = facts["rows"]
    if len(values) != count * (program.width + program.outputs):
        raise BundleError(f"{where}: {len(values)} numbers in {PARITY}: expected {count} rows")
    rows = values[: count * program.width].reshape(count, program.width)
    answers = values[count * program.width :].reshape(count, program.outputs)
    return replace(parcel, facts={"engines": {"full": kernel}}), (
        rows,
        answers,
        float(facts["tolerance"]),
    )
