"""One thing that was looked at, and what came of it.

Entry points: `Finding`; `ok`, `costs`, `unreadable` make the `Outcome` of a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Finding", "Outcome", "Verdict", "costs", "ok", "unreadable"]

Verdict = Literal["ok", "costs latency", "not readable here"]


class Outcome(NamedTuple):
    """What a check says."""

    verdict: Verdict
    read: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """An outcome with its place.

    Attributes:
        group: what it belongs to: ``core``, ``memory``, ``system``, ``GPU``, ``tools``.
        what: what was looked at.
        verdict: ``ok``, ``costs latency`` or ``not readable here``.
        read: what was read.
        why: what it costs, or why it could not be read; empty where all is well.
        fix: what to do, in one line; empty where there is nothing to do.
    """

    group: str
    what: str
    verdict: Verdict
    read: str
    why: str = ""
    fix: str = ""


def ok(read: str, why: str = "") -> Outcome:
    """It costs nothing."""
    return Outcome("ok", read, why)


def costs(read: str, why: str, fix: str) -> Outcome:
    """It costs latency."""
    return Outcome("costs latency", read, why, fix)


def unreadable(why: str, fix: str = "") -> Outcome:
    """It could not be read."""
    return Outcome("not readable here", "", why, fix)
