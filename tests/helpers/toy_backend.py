"""A backend of one's own, as docs/howto-backend.md shows it: its signal is always up."""

from __future__ import annotations

from tickrt.backends import Probe
from tickrt.config import SessionConfig
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.model_source import Source


class UpEngine(NullEngine):
    """Always (down, flat, up) = (0.1, 0.2, 0.7)."""

    backend = "up"

    def __init__(self) -> None:
        super().__init__(signal=(0.1, 0.2, 0.7))


def probe(targets: tuple[str, ...] = ()) -> Probe:
    return Probe(needs_model=False)


def load(source: Source | None, ring: RowRing, settings: SessionConfig) -> UpEngine:
    return UpEngine()
