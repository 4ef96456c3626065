"""A kernel of engine hosts that sleeps over every answer, for `benchmarks.isolation`.

Entry points: `warm`, `load`, as `tickrt.host.kernels.registry` asks for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

__all__ = ["load", "warm"]


class Sleeper:
    """Answers a third each time, after the time that its facts name."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def answer(self, seq: int, rows: Any, out: Any) -> None:
        """The same as ever, late."""
        time.sleep(self._seconds)
        out[:] = 1 / 3

    def advance(self, seq: int, rows: Any) -> None:
        """It has no states."""

    def reset(self) -> None:
        """It has no states."""

    def close(self) -> None:
        """It holds nothing."""


def warm() -> None:
    """Nothing to do."""


def load(payloads: Mapping[str, Any], facts: Mapping[str, Any]) -> Sleeper:
    """The one engine that there is."""
    return Sleeper(float(facts["seconds"]))
