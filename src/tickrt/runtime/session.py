"""A session: load, build, compile, run the hot loop in a thread of its own, report.

Entry point: ``Session(config).run(progress)`` → the `Report`. `Session.open` does everything
up to the first tick, so that a backtest can drive the same parts with its own clock.

The hot thread holds no GIL; the calling thread only reads counters, every 50 ms, for the progress
bar. Ctrl-C stops the loop after the batch in hand; the report then covers what was done.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tickrt.config import SessionConfig
from tickrt.errors import ConfigError, raise_code
from tickrt.market.event_file import EventFile, instruments_of, load_events, merge_events
from tickrt.market.instrument import Instrument
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import FeedView, array_view
from tickrt.observe.clock import floor, ticks_per_ns
from tickrt.observe.kernels import read_clock
from tickrt.runtime.assembly import Assembly, assemble
from tickrt.runtime.loop.loop_kernels import Pace, run
from tickrt.runtime.loop.state import tape_room
from tickrt.runtime.report_types import Report
from tickrt.runtime.results import Ran, counter, loop_report

__all__ = ["Progress", "Session"]

Progress = Callable[[int, int], None]
_RING_TAPE = 1 << 18  # records, when nobody knows how many events will come
_POLL_S = 0.05


class Session:
    """Recorded events through the loop.

    Args:
        config: the session.
        feed: where events come from instead of the config's files: a `FeedView` (a ring that
            another process fills) with the instrument of each symbol index.
    """

    def __init__(
        self,
        config: SessionConfig,
        feed: tuple[FeedView, Sequence[Instrument]] | None = None,
    ) -> None:
        self.config = config
        self.startup_s = 0.0
        self.compile_s = 0.0
        started = time.perf_counter()
        self.files: tuple[EventFile, ...] = ()
        if feed is None:
            self.files = tuple(load_events(path) for path in config.data)
            self.markets: tuple[Instrument, ...] = instruments_of(
                self.files, [s.symbol for s in config.strategies]
            )
            self.events = merge_events(self.files)
            self.feed, self._owner = array_view(self.events)
        else:
            self.feed, self.markets = feed[0], tuple(feed[1])
            self.events, self._owner = np.zeros(0, EVENT_DTYPE), None
        room = tape_room(self.events, len(config.strategies)) if feed is None else _RING_TAPE
        records = config.tape_records or room
        self.assembly: Assembly = assemble(config, self.markets, records)
        self._warm()
        self.startup_s = time.perf_counter() - started

    def _warm(self) -> None:
        """Compile (or load from the cache) by running over an empty feed; touch every page."""
        started = time.perf_counter()
        empty, owner = array_view(np.zeros(0, EVENT_DTYPE))
        run(empty, self.assembly.loop, Pace(0, 0, 0, 0.0))
        del owner
        self.compile_s = time.perf_counter() - started
        for tape in self.assembly.loop.tape:
            tape.view(np.uint8).fill(0)

    def _pace(self) -> Pace:
        if self.config.pace == 0 or not len(self.events):
            return Pace(0, 0, 0, 0.0)
        now = int(read_clock())
        lead = int(2e6 * ticks_per_ns())  # the first event is due in 2 ms
        return Pace(
            1, now + lead, int(self.events["local_ts"][0]), ticks_per_ns() / self.config.pace
        )

    def run(self, progress: Progress | None = None) -> Report:
        """Run to the end of the feed and report.

        Args:
            progress: called with (events done, events in all) from this thread.

        Raises:
            TickrtError: what stopped the loop, with the file and the event.
        """
        loop = self.assembly.loop
        result: list[int] = []
        wall: list[float] = []
        failed: list[BaseException] = []

        def hot() -> None:
            try:
                if self.config.pin_cpu is not None:
                    os.sched_setaffinity(0, {self.config.pin_cpu})
                started = time.perf_counter()
                result.append(int(run(self.feed, loop, self._pace())))
                wall.append(time.perf_counter() - started)
            except BaseException as error:  # raised again in the calling thread
                failed.append(error)

        gc.collect()
        thread = threading.Thread(target=hot, name="tickrt-hot", daemon=True)
        thread.start()
        interrupted = False
        total = len(self.events)
        while thread.is_alive():
            try:
                thread.join(_POLL_S)
                if progress is not None:
                    progress(counter(self.assembly, "cursor"), total)
            except KeyboardInterrupt:
                loop.stop[1], interrupted = 1, True
        if failed and isinstance(failed[0], OSError):
            raise ConfigError(
                f"pin_cpu: the hot thread cannot run on core {self.config.pin_cpu}: choose one of "
                f"{sorted(os.sched_getaffinity(0))}"
            ) from None
        if failed:
            raise failed[0]
        raise_code(result[0], self._where())
        return self._report(wall[0], interrupted)

    def _where(self) -> str:
        names = ", ".join(str(path) for path in self.config.data)
        return f"{names}: event {counter(self.assembly, 'error_event')}"

    def _report(self, wall_s: float, interrupted: bool) -> Report:
        return loop_report(
            self.assembly,
            self.markets,
            Ran(
                kind="run",
                data=[str(path) for path in self.config.data],
                pace=pace_text(self.config.pace),
                wall_s=wall_s,
                compile_s=self.compile_s,
                startup_s=self.startup_s,
                config=self.config.model_dump(mode="json"),
                floor=floor(),
                interrupted="SIGINT" if interrupted else None,
            ),
        )

    def intents(self) -> NDArray[np.void]:
        """Every intent so far, in order: `INTENT_DTYPE`."""
        return self.assembly.loop.tape.intents[: counter(self.assembly, "logged")]

    def close(self) -> None:
        """Release the engines."""
        self.assembly.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pace_text(pace: float) -> str:
    """``max``, ``realtime`` or ``10x``."""
    return {0.0: "max", 1.0: "realtime"}.get(pace, f"{pace:g}x")
