"""SIGINT, SIGTERM and SIGHUP: noticed at any moment, acted on where nothing can break.

Entry points: `handled()`, around a whole command: inside it each of them raises `Interrupted`, and
`received()` remembers it; `deferred(notice)`: inside that a signal is passed to `notice` instead of
raising, for work that comes to an orderly end by itself; `check()` raises what was only noticed;
`abrupt()`: inside that a signal ends the process at once, for work that an exception would break in
two (compiling: it would leave LLVM's lock taken) and that leaves nothing behind.

Invariants: handlers belong to the main thread; in another thread nothing changes. `Interrupted` is
no `Exception`: nothing that handles errors handles it. One that Python swallowed (in a callback
from C, say) is still in `received()`. SIGHUP that is ignored (nohup) stays so; one that comes means
that the terminal is gone: what is printed on it from then on goes nowhere, instead of failing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EXIT_BASE", "Interrupted", "abrupt", "check", "deferred", "handled", "received"]

EXIT_BASE = 128  # a command that a signal ended exits with this + its number
_OUT, _ERR = 1, 2  # file descriptors that may be a terminal

Handler = Callable[[int, FrameType | None], object]


class Interrupted(BaseException):
    """A signal asked the process to end; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _State:
    handling = False
    last = False  # the process belongs to the command
    received: int | None = None
    terminals: tuple[int, ...] = ()


def _signals() -> tuple[signal.Signals, ...]:
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


def received() -> int | None:
    """The number of the first signal that came inside `handled()`, or None."""
    return _State.received


def check() -> None:
    """Go no further where a signal came.

    Raises:
        Interrupted: one came inside `handled()`.
    """
    if _State.received is not None:
        raise Interrupted(_State.received)


def _remember(signum: int) -> None:
    if _State.handling and _State.received is None:
        _State.received = signum
    if signum == signal.SIGHUP and _State.terminals:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in _State.terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)


def _raise(signum: int, _frame: FrameType | None) -> None:
    _remember(signum)
    raise Interrupted(signum)


@contextmanager
def _installed(handler: Handler, after: signal.Handlers | None = None) -> Iterator[None]:
    """`handler` inside; what was there, or `after`, afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in _signals()}
    try:
        yield
    finally:
        for signum, old in before.items():
            chosen = old if after is None else after
            signal.signal(signum, chosen if chosen is not None else signal.SIG_DFL)


@contextmanager
def handled(*, last: bool = False) -> Iterator[None]:
    """Let the signals raise `Interrupted`, from anywhere in the main thread.

    `last`: nothing but the end of the process comes after it: signals are ignored then.
    """
    _State.handling, _State.received, _State.last = True, None, last
    _State.terminals = tuple(fd for fd in (_OUT, _ERR) if os.isatty(fd))
    try:
        with _installed(_raise, signal.SIG_IGN if last else None):
            yield
    finally:
        _State.handling = _State.last = False
        _State.terminals = ()


@contextmanager
def deferred(notice: Callable[[int], object] | None = None) -> Iterator[None]:
    """Pass the signals to `notice`, which gets the signal's number, instead of raising.

    Without `notice` a signal is only remembered: for what must be finished first.
    """

    def handle(signum: int, _frame: FrameType | None) -> None:
        _remember(signum)
        if notice is not None:
            notice(signum)

    with _installed(handle):
        yield


def _end(signum: int, _frame: FrameType | None) -> None:
    if os.isatty(_ERR):
        os.write(_ERR, b"\x1b[?25h\n")  # a progress bar had hidden the cursor
    os._exit(EXIT_BASE + signum)


@contextmanager
def abrupt() -> Iterator[None]:
    """Let the signals end the process at once, inside `handled(last=True)`; elsewhere, and
    inside `deferred`, nothing changes."""
    installed = signal.getsignal(signal.SIGTERM)
    if not _State.last or installed is not _raise:
        yield
        return
    check()
    with _installed(_end):
        yield
