"""Progress on stderr, so that stdout stays clean.

Entry points: `bar(text, quiet)` for work with a known length, `working(text, quiet)` for work
without one, `first_compile(what)` for how long compiling will take.

Nothing is shown with `quiet` (``--json``), with ``--quiet`` or ``--log-json``, on what is not a
terminal, and for work that is over within half a second.

How long a first compilation takes is remembered beside what was compiled (a file of seconds per
command), so that the next one, after an update, is estimated by this machine and not by ours.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["FirstCompile", "bar", "first_compile", "share", "working"]

Report = Callable[[float, float], None]
SHOW_AFTER_S = 0.5
shown = True  # False with --quiet and --log-json

_LOG = logging.getLogger("tickrt.cli")
# Seconds on two cores of a Xeon; benchmarks/results/startup.json has the first one.
_USUAL_S = {"run": 33.0, "backtest": 45.0, "simulate": 15.0}
_WORTH_SAYING_S = 5.0


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
        folder: where its seconds are kept once they are known; None: nothing is compiled.
    """

    what: str
    about_s: float
    folder: Path | None

    SUFFIX: ClassVar[str] = ".seconds"

    @property
    def note(self) -> str:
        """For the text beside the bar: empty where nothing has to be compiled."""
        return f" (compiling once, about {self.about_s:.0f} s)" if self.about_s else ""

    def done(self, seconds: float) -> None:
        """Remember how long it took, for the next estimate on this machine."""
        if self.folder is None or not self.about_s:
            return
        _LOG.info("compiled what %s needs in %.1f s", self.what, seconds)
        with contextlib.suppress(OSError):  # an estimate is not worth an error
            (self.folder / f"{self.what}{self.SUFFIX}").write_text(f"{seconds:.1f}\n")


def first_compile(what: str) -> FirstCompile:
    """What compiling will cost now, by what it cost on this machine before, else on ours."""
    from tickrt.compile.jit import JIT, cache_dir
    from tickrt.compile.jit import config as numba_config  # type: ignore[attr-defined]

    if not JIT:
        return FirstCompile(what, 0.0, None)
    name, folder = f"{what}{FirstCompile.SUFFIX}", Path(str(numba_config.CACHE_DIR))
    if (folder / name).is_file():
        return FirstCompile(what, 0.0, folder)
    before = sorted(cache_dir().glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
    about_s = _USUAL_S[what]
    with contextlib.suppress(OSError, ValueError, IndexError):
        about_s = max(float(before[-1].read_text()), _WORTH_SAYING_S)
    return FirstCompile(what, about_s, folder)


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

    Args:
        about_s: an estimate of its seconds: then the bar fills as they pass, and waits at 95 %.
    """
    if not _shown(quiet):
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
        yield
    finally:
        over.set()
        thread.join()
        display.stop()
