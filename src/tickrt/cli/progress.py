"""Progress on stderr, so that stdout stays clean.

Entry points: `bar(text, quiet)` for work with a known length, `working(text, quiet)` for work
without one. Nothing is shown with `quiet` (``--json``), on what is not a terminal, and for work
that is over within half a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["bar", "share", "working"]

Report = Callable[[float, float], None]
SHOW_AFTER_S = 0.5


def _display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        Remaining(elapsed_when_finished=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # what a command prints on stdout stays there
        redirect_stderr=False,
    )


def _shown(quiet: bool) -> bool:
    import sys

    return not quiet and sys.stderr.isatty()


@contextmanager
def bar(text: str, quiet: bool = False) -> Iterator[Report]:
    """A bar; yields ``report(done, total)``, which may be called from any thread, often."""
    if not _shown(quiet):
        yield lambda _done, _total: None
        return
    display = _display()
    started = time.monotonic()
    task = display.add_task(text, total=None)

    def report(done: float, total: float) -> None:
        if not display.live.is_started and time.monotonic() - started > SHOW_AFTER_S:
            display.start()
        display.update(task, completed=done, total=total or None)

    try:
        yield report
    finally:
        display.stop()


def share(report: Report) -> Callable[[float], None]:
    """`report` for work that tells its finished share, 0…1."""
    return lambda done: report(done, 1.0)


@contextmanager
def working(text: str, quiet: bool = False) -> Iterator[None]:
    """A moving bar and the time elapsed, for work of unknown length (loading, compiling)."""
    if not _shown(quiet):
        yield
        return
    display = _display()
    display.add_task(text, total=None)
    timer = threading.Timer(SHOW_AFTER_S, display.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        display.stop()
