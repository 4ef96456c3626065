"""Progress on stderr, so that stdout stays clean.

Entry points: `bar(text, quiet)` for work with a known length, `working(text, quiet)` for work
without one, `first_compile(what)` for how long compiling will take.

Nothing is shown with `quiet` (``--json``), with ``--quiet`` or ``--log-json``, on what is not a
terminal, and for work that is over within half a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

from tickrt.interrupts import abrupt

__all__ = ["FirstCompile", "bar", "first_compile", "share", "working"]

Report = Callable[[float, float], None]
SHOW_AFTER_S = 0.5
shown = True  # False with --quiet and --log-json

_LOG = logging.getLogger("tickrt.cli")
# Seconds on two cores of a Xeon; benchmarks/results/startup.json has the first one.
_USUAL_S = {"run": 33.0, "backtest": 10.0, "simulate": 5.0}
_PARTS = {"run": ("run",), "backtest": ("run", "backtest"), "simulate": ("simulate",)}


def _display(timed: bool = True) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        *([Remaining(elapsed_when_finished=False)] if timed else []),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # what a command prints on stdout stays there
        redirect_stderr=False,
    )


def _shown(quiet: bool) -> bool:
    return shown and not quiet and sys.stderr.isatty()


@dataclass(frozen=True)
class FirstCompile:
    """How long it will take to compile what a command needs; 0 where it is in the cache.

    Attributes:
        what: ``run``, ``backtest`` or ``simulate``.
        about_s: the estimate.
        mark: the file that says that it is in the cache; it lies with what was compiled.
    """

    what: str
    about_s: float
    mark: Path

    @property
    def note(self) -> str:
        """For the text beside the bar: empty where nothing has to be compiled."""
        return f" (compiling once, about {self.about_s:.0f} s)" if self.about_s else ""

    def done(self, seconds: float) -> None:
        """It is in the cache now; it took `seconds`."""
        if self.about_s:
            _LOG.info("compiled what %s needs in %.1f s", self.what, seconds)
            with contextlib.suppress(OSError):  # an estimate is not worth an error
                self.mark.touch()


def first_compile(what: str) -> FirstCompile:
    """What compiling will cost a command now."""
    from tickrt.compile.jit import JIT, compiled_dir

    # The cache is of this very source (`compile.jit`), and Numba's files in it of where it lies.
    place = hashlib.sha256(str(Path(__file__).parent).encode()).hexdigest()[:12]
    marks = {p: compiled_dir() / f"{p}-{place}.compiled" for p in _PARTS[what]}
    missing = [part for part, mark in marks.items() if not mark.exists()]
    about_s = sum(_USUAL_S[part] for part in missing) if JIT and what in missing else 0.0
    return FirstCompile(what, about_s, marks[what])


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
def working(text: str, quiet: bool = False, about_s: float = 0.0) -> Iterator[None]:
    """For work of unknown length (loading, compiling): a moving bar and the time elapsed.

    It must leave nothing behind: a signal ends the process at once (`interrupts.abrupt`).

    Args:
        about_s: an estimate of its seconds: then the bar fills as they pass, and waits at 95 %.
    """
    if not _shown(quiet):
        with abrupt():
            yield
        return
    display = _display(timed=about_s > 0)
    task = display.add_task(text, total=about_s or None)
    over = threading.Event()
    started = time.monotonic()

    def show() -> None:
        if over.wait(SHOW_AFTER_S):
            return
        display.start()
        while not over.wait(0.2):
            if about_s:
                passed = time.monotonic() - started
                display.update(task, completed=min(passed, 0.95 * about_s))

    thread = threading.Thread(target=show, name="tickrt-progress", daemon=True)
    thread.start()
    try:
        with abrupt():
            yield
    finally:
        over.set()
        thread.join()
        display.stop()
