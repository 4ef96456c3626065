"""The `reference` backend: a model as a program, run in NumPy by an engine host.

Everything of a GPU engine but the GPU: the process, the mailbox, the program that kernels are
generated from. Slow and exact: to test, and to compare with.

Entry points: `probe`, `load`, `load_group`, as `tickrt.backends` calls them.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from tickrt.backends import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickrt.config import SessionConfig
    from tickrt.host.parcel import Parcel
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["load", "load_group", "probe"]

_NAME, _MAX_BATCH = "reference", 128


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs where processes share memory as `host.mailbox` needs it."""
    here = (sys.platform, platform.machine())
    fits = here == ("linux", "x86_64")
    why = "" if fits else f"its mailbox needs Linux on x86-64, this is {here}"
    return Probe(runs=why, in_host=True)


def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The model in a host process of its own.

    Raises:
        ConfigError: the settings ask for what the model does not have, or `engine_python` is none.
        IncompatibleError: a bundle that was built by another backend.
        ModelError: an operator cannot be translated.
        HostError: the process does not start.
    """
    from tickrt.host.cores import cores_beside
    from tickrt.host.process import HostProcess
    from tickrt.runtime.backends.mailbox.engine import MailboxEngine

    parcel = _parcel(source, settings)
    host = HostProcess(settings.engine_python or "", cores=cores_beside(settings.pin_cpu))
    return MailboxEngine(_NAME, source.model, ring, host, parcel)


def load_group(
    source: Source, rings: Sequence[RowRing], settings: SessionConfig
) -> list[Engine] | None:
    """The model on many streams in one host; None where `max_batch` is 1. Raises as `load`."""
    from tickrt.host.cores import cores_beside
    from tickrt.host.process import HostProcess
    from tickrt.runtime.backends.mailbox.batch import group

    max_batch = settings.max_batch or _MAX_BATCH
    if max_batch == 1:
        return None
    parcel = _parcel(source, settings)
    host = HostProcess(settings.engine_python or "", cores=cores_beside(settings.pin_cpu))
    return group(_NAME, source.model, rings, host, parcel, max_batch)


def _parcel(source: Source, settings: SessionConfig) -> Parcel:
    from tickrt.engines.translate import stream_program
    from tickrt.host.kernels.reference import FORMAT, parcel
    from tickrt.program import to_bytes
    from tickrt.runtime.backends.mailbox.parcel import bundle_parcel
    from tickrt.runtime.backends.wanted import onnx_source, wanted_split

    if source.built and source.model.format == FORMAT:
        return bundle_parcel(source, settings)
    onnx_source(source, _NAME)
    program = stream_program(source.model, wanted_split(source, settings))
    return parcel(str(source.path), to_bytes(program))
