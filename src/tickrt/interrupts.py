"""SIGINT and SIGTERM: noticed at any moment, acted on where nothing can break.

Entry points: `install()`, once, by the command line: from then on either signal raises
`Interrupted`, and `received()` remembers it; `deferred(notice)`: inside it a signal is passed to
`notice` instead of raising, for work that must come to an orderly end by itself.

Invariants: handlers belong to the main thread; in another thread `deferred` changes nothing. A
signal that came inside `deferred` is not raised when it ends: who asked for the notice acts on it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EXIT_BASE", "Interrupted", "deferred", "install", "received"]

EXIT_BASE = 128  # a command that a signal ended exits with this + its number
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _State:
    received: int | None = None


def received() -> int | None:
    """The number of the first signal that came, or None."""
    return _State.received


def _raise(signum: int, _frame: FrameType | None) -> None:
    _State.received = _State.received or signum
    raise Interrupted(signum)


def install() -> None:
    """Let SIGINT and SIGTERM raise `Interrupted` in the main thread; forgets earlier signals."""
    _State.received = None
    if threading.current_thread() is threading.main_thread():
        for signum in _SIGNALS:
            signal.signal(signum, _raise)


@contextmanager
def deferred(notice: Callable[[int], None]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM to `notice`, which gets the signal's number, instead of raising."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, _frame: FrameType | None) -> None:
        _State.received = _State.received or signum
        notice(signum)

    before = {signum: signal.signal(signum, handle) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
