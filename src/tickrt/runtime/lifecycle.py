"""The one way in which a hot thread starts, is watched, is stopped and ends.

Entry point: ``run_to_end(body, stop, …)`` → `Ended`. `run`, `backtest` and the demo go through it.

Invariants: it returns, or raises, only after the hot thread has really ended, whatever happens in
the calling thread: a signal, an exception in the progress callback, a failing companion. So the
caller may free what the thread used. What the hot thread raised is raised here.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt import interrupts
from tickrt.runtime.placement import Placement, locked_memory, place_this_thread
from tickrt.runtime.report_types import Arrangement

__all__ = ["Companion", "Ended", "Progress", "run_to_end"]

Progress = Callable[[int, int], None]
_POLL_S = 0.05


class Companion(Protocol):
    """A thread that works beside the loop: reads its records, fills its feed."""

    def start(self) -> None:
        """Begin."""
        ...

    def finish(self) -> None:
        """The loop has ended: come to an end, then raise what went wrong."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a hot thread ended.

    Attributes:
        code: what the compiled loop returned (`errors.Code`).
        wall_s: how long it ran, seconds.
        interrupted: the name of the signal that stopped it, or None.
        arranged: what came of what was asked of the system for it.
    """

    code: int
    wall_s: float
    interrupted: str | None
    arranged: tuple[Arrangement, ...] = ()


class _HotThread:
    """Runs `body` where it is wanted and keeps what came of it."""

    def __init__(self, body: Callable[[], int], placement: Placement) -> None:
        self._body, self._placement = body, placement
        self.arranged: tuple[Arrangement, ...] = ()
        self.code, self.wall_s = 0, 0.0
        self.failed: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="tickrt-hot", daemon=True)

    def _run(self) -> None:
        try:
            self.arranged = place_this_thread(self._placement)
            started = time.perf_counter()
            self.code = int(self._body())
            self.wall_s = time.perf_counter() - started
        except BaseException as error:  # raised again in the calling thread
            self.failed = error


def run_to_end(
    body: Callable[[], int],
    stop: NDArray[np.int64],
    *,
    progress: Callable[[], None] | None = None,
    placement: Placement | None = None,
    companions: Sequence[Companion] = (),
) -> Ended:
    """Run a compiled loop in a thread of its own until it ends.

    SIGINT, SIGTERM and SIGHUP stop the loop after the batch in hand.

    Args:
        body: calls the loop; returns its code. It must not hold the GIL for long.
        stop: int64[2]; [1] not 0 makes the loop end (`Loop.stop`).
        progress: called every 50 ms, and once at the end, from this thread.
        placement: where and how the hot thread runs; the companions run as the caller does.
        companions: started before it, finished after it, in this order.

    Raises:
        ConfigError: the hot thread cannot be pinned.
        BaseException: what the hot thread, the progress callback or a companion raised.
    """
    placement = placement or Placement()
    hot = _HotThread(body, placement)
    caught: list[int] = []

    def notice(signum: int) -> None:
        caught.append(signum)
        stop[1] = 1

    gc.collect()
    failed: list[BaseException] = []
    with interrupts.deferred(notice), locked_memory(placement.lock_memory) as locked:
        if (earlier := interrupts.received()) is not None:
            notice(earlier)  # it came while nobody could act on it
        started = _start([*companions, _Starter(hot.thread)], failed)
        if failed:
            stop[1] = 1
        alive = True
        while alive:
            try:
                hot.thread.join(_POLL_S)
                alive = hot.thread.is_alive()
                if progress is not None:
                    progress()
            except BaseException as error:  # the thread must end before this is raised
                failed.append(error)
                stop[1], progress, alive = 1, None, hot.thread.is_alive()
        for companion in started:
            try:
                companion.finish()
            except BaseException as error:
                failed.append(error)
    for problem in (hot.failed, *failed):
        if problem is not None:
            raise problem
    name = signal.Signals(caught[0]).name if caught else None
    return Ended(hot.code, hot.wall_s, name, (*locked, *hot.arranged))


class _Starter:
    """The hot thread among the companions, so that all start in one place."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._thread.join()


def _start(members: Sequence[Companion], failed: list[BaseException]) -> list[Companion]:
    """Start each; what was started, and in `failed` why the rest was not."""
    started: list[Companion] = []
    for member in members:
        try:
            member.start()
        except BaseException as error:
            failed.append(error)
            break
        started.append(member)
    return started
