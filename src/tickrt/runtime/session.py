"""A session: load, build, compile, run the hot loop in a thread of its own, report.

Entry point: ``Session(config).run(progress)`` → the `Report`.

The hot thread holds no GIL; the calling thread only reads counters, every 50 ms, for the progress
bar. SIGINT, SIGTERM and SIGHUP stop the loop after the batch in hand; the report then covers what
was done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tickrt import backends
from tickrt.config import SessionConfig, pace_text
from tickrt.execution.gateways.gateway import GatewayLike, GatewayMaker
from tickrt.feeds.file_feeder import FileFeeder
from tickrt.market.event_file import instruments_of
from tickrt.market.event_stream import open_stream
from tickrt.market.instrument import Instrument
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import FeedView, Ring, array_view
from tickrt.observe.clock import floor, ticks_per_ns
from tickrt.observe.kernels import read_clock
from tickrt.runtime.gpu_watch import GpuWatch
from tickrt.runtime.lifecycle import Companion, Progress
from tickrt.runtime.loop.loop_kernels import Pace, run
from tickrt.runtime.loop_run import LoopRun
from tickrt.runtime.placement import Placement
from tickrt.runtime.report_types import Report

__all__ = ["Session"]

FEED_EVENTS = 1 << 17  # room of the ring that files are fed through: 9 MiB


class Session(LoopRun):
    """Recorded or live events through the loop.

        config = tr.SessionConfig(
            data=(Path("btc.npz"),), strategies=(tr.StrategySettings(model="light_lstm"),)
        )
        with tr.Session(config) as session:
            report, fills = session.run(), session.tables.fills.to_pandas()
        print(report.orders, report.latency_us["tick_to_order"].p50)

    Args:
        config: the session.
        feed: where events come from instead of the config's files: a `FeedView` (a ring that
            another process fills) with the instrument of each symbol index.
        gateway: who answers the orders, or what makes it; default: the one that `config` names.
        keep_records: hold every record, on disk, for `records`, `intents`, `fills`, `signals`.
    """

    def __init__(
        self,
        config: SessionConfig,
        feed: tuple[FeedView, Sequence[Instrument]] | None = None,
        gateway: GatewayLike | GatewayMaker | None = None,
        *,
        keep_records: bool = True,
    ) -> None:
        started = time.perf_counter()
        self._companions: list[Companion] = []
        self._first_ns = self._total = 0
        if feed is None:
            view, markets = self._open_files(config)
        else:
            view, markets = feed
        super().__init__(config, markets, view, gateway, keep_records=keep_records)
        self._warm()
        self.startup_s = time.perf_counter() - started

    def _open_files(self, config: SessionConfig) -> tuple[FeedView, Sequence[Instrument]]:
        """The config's files, fed through a ring: they never lie in memory as a whole."""
        streams = [open_stream(path) for path in config.data]
        markets = instruments_of(streams, [s.symbol for s in config.strategies])
        self._ring = Ring.local(FEED_EVENTS)
        self._companions = [FileFeeder(streams, self._ring)]
        self._first_ns = min(stream.first_local_ns for stream in streams)
        self._total = sum(stream.count for stream in streams)
        return self._ring.view, markets

    def _warm(self) -> None:
        """Compile (or load from the cache) by running over an empty feed."""
        started = time.perf_counter()
        empty, owner = array_view(np.zeros(0, EVENT_DTYPE))
        run(empty, self.assembly.loop, Pace(0, 0, 0, 0.0))
        del owner
        self.compile_s = time.perf_counter() - started

    def _pace(self) -> Pace:
        if self.config.pace == 0 or not self._companions:
            return Pace(0, 0, 0, 0.0)
        now = int(read_clock())
        lead = int(2e6 * ticks_per_ns())  # the first event is due in 2 ms
        return Pace(1, now + lead, self._first_ns, ticks_per_ns() / self.config.pace)

    def run(self, progress: Progress | None = None) -> Report:
        """Run to the end of the feed and report.

        Args:
            progress: called with (events done, events in all) from this thread.

        Raises:
            ConfigError: its files were played before.
            TickrtError: what stopped the loop, with the file and the event.
        """
        if self._companions:
            self._play_once()
        loop, c = self.assembly.loop, self.config
        watch = GpuWatch(c.pin_cpu) if backends.on_gpu(c.backend) else None
        ended = self._play(
            lambda: int(run(self.feed, loop, self._pace())),
            self._total,
            progress,
            [*self._companions, *([watch] if watch else [])],
            Placement(c.pin_cpu, c.lock_memory, c.realtime_priority),
        )
        return self._report_of(
            "run",
            ended,
            pace=pace_text(self.config.pace),
            config=self.config.model_dump(mode="json"),
            floor=floor(),
            gpu=watch.use() if watch else None,
        )
