"""A backtest: a loop, recorded events, hftbacktest as the gateway, a report.

Entry points: ``run_backtest(config, venue, latency, progress)`` → the `Report`; `Backtest` for
what is behind it (intents, fills, marks, charged times).

The compiled loop runs in a thread without the GIL; the calling thread reads counters for the
progress bar. With the same files, models, parameters and charged times two backtests are equal byte
by byte.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.backtest.kernels import replay
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.metrics import measure
from tickrt.compile.codes import BATCH_END, LOCAL, NEW
from tickrt.config import HftbacktestSettings, SessionConfig
from tickrt.execution.gateways.hftbacktest import HftbacktestGateway, VenueConfig
from tickrt.market.event_file import instruments_of, load_events, merge_events
from tickrt.memory.ring import array_view
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.lifecycle import Progress
from tickrt.runtime.loop_run import LoopRun
from tickrt.runtime.report_types import BacktestFigures, ChargedLatency, Metrics, Report, Series
from tickrt.runtime.results import currency

__all__ = ["Backtest", "Clock", "run_backtest"]


class Clock(NamedTuple):
    """The backtest's time, as compiled code sees it."""

    state: NDArray[np.int64]  # [4] busy until, inferences charged, next mark, marks written
    samples: NDArray[np.int64]  # [n] ns, charged in turn
    measure: NDArray[np.float64]  # [1] ns per clock tick where times are measured, else 0
    charged: NDArray[np.int64]  # [rows] what was charged, in order
    marks: NDArray[np.float64]  # [P, seconds + 3, 4] equity, fees, position, mid


class Backtest(LoopRun):
    """A backtest, built and ready to run once.

        config = tr.SessionConfig(
            data=(Path("btc.npz"),), strategies=(tr.StrategySettings(model="light_lstm"),)
        )
        with tr.Backtest(config) as backtest:
            print(backtest.run().backtest.pnl_net)

    Args:
        config: the session; its `pace` and `pin_cpu` are not used.
        venue: the simulated venue; default: the config's gateway.
        latency: what each inference is charged; default: what the gateway says.
    """

    def __init__(
        self,
        config: SessionConfig,
        venue: VenueConfig | None = None,
        latency: InferenceLatency | None = None,
    ) -> None:
        started = time.perf_counter()
        gateway = config.gateway
        own = gateway if isinstance(gateway, HftbacktestSettings) else None
        self.venue_config = venue or own or VenueConfig()
        self.latency = latency or InferenceLatency.configured(own)
        files = [load_events(path) for path in config.data]
        markets = instruments_of(files, [s.symbol for s in config.strategies])
        self.events = merge_events(files)
        local = self.events["local_ts"][(self.events["ev"] & np.uint64(LOCAL)) != 0]
        self.seconds = (int(local[-1]) - int(local[0])) / 1e9
        data = [file.data for file in files]
        view, self._owner = array_view(self.events)
        super().__init__(
            config, markets, view, lambda made: HftbacktestGateway(self.venue_config, data, made)
        )
        assert isinstance(self.assembly.gateway, HftbacktestGateway)
        self.venue = self.assembly.gateway
        # How long this machine takes must not change a backtest: `latency` says how late we are.
        self.assembly.loop.engines.deadline[:] = np.iinfo(np.int64).max
        self.clock = self._clock()
        self._warm()
        self.startup_s = time.perf_counter() - started

    def _clock(self) -> Clock:
        ends = np.uint64(LOCAL | BATCH_END)
        batches = int(np.count_nonzero((self.events["ev"] & ends) == ends))
        strategies = len(self.config.strategies)
        rate = 1.0 / ticks_per_ns() if self.latency.measure else 0.0
        return Clock(
            state=np.zeros(4, np.int64),
            samples=self.latency.samples_ns,
            measure=np.array([rate]),
            charged=np.zeros(batches * strategies, np.int64),
            marks=np.zeros((strategies, int(self.seconds) + 3, 4)),
        )

    def _replay(self, events: NDArray[np.void]) -> int:
        return int(replay(events, self.assembly.loop, self.venue.state.times, self.clock))

    def _warm(self) -> None:
        """Compile, or load from the cache, over no events."""
        started = time.perf_counter()
        self._replay(self.events[:0])
        self.clock.state.fill(0)
        self.compile_s = time.perf_counter() - started

    def run(self, progress: Progress | None = None) -> Report:
        """Run to the end of the data and report.

        Args:
            progress: called with (events done, events in all) from this thread.

        Raises:
            ConfigError: it ran before.
            TickrtError: what stopped it.
        """
        self._play_once()
        total = len(self.events)
        ended = self._play(lambda: self._replay(self.events), total, progress)
        refused = self.venue.refused
        report = self._report_of(
            "backtest",
            ended,
            pace="max",
            config={
                **self.config.model_dump(mode="json"),
                "venue": _plain(self.venue_config),
                "inference_latency": self.latency.source,
            },
            notes=[f"the venue refused {refused} orders"] if refused else [],
        )
        figures = [self._figures(p) for p in range(len(self.assembly.slots))]
        return replace(
            report,
            series=[self._with_gross(p, series) for p, series in enumerate(report.series)],
            backtest=figures[0],
            backtest_by_strategy=figures,
        )

    def marks(self, p: int = 0) -> NDArray[np.float64]:
        """float64[n, 4] of strategy `p`: equity, fees, position, mid, each second and at the
        end."""
        return self.clock.marks[p, : int(self.clock.state[3])]

    def charged_ns(self) -> NDArray[np.int64]:
        """What each inference was charged, in order; `InferenceLatency.per_row` takes it."""
        return self.clock.charged[: min(int(self.clock.state[1]), len(self.clock.charged))]

    def metrics(self, p: int = 0) -> Metrics:
        """The figures of strategy `p`."""
        intents, fills = self.intents(), self.fills()
        sent = (intents["strategy"] == p) & (intents["kind"] == NEW) & (intents["reason"] == 0)
        return measure(
            self.marks(p),
            fills[fills["strategy"] == p],
            self.markets[self.assembly.slots[p].symbol],
            orders=int(self.assembly.loop.orders.sent[p]),
            order_lots=int(intents["qty_lots"][sent].sum()),
            turnover=float(self.assembly.loop.strategies.turnover[p]),
            seconds=self.seconds,
        )

    def _with_gross(self, p: int, series: Series) -> Series:
        """The chart's series with the gross equity beside the net one."""
        fills = self.fills()
        fills = fills[fills["strategy"] == p]
        paid = np.concatenate([[0.0], np.cumsum(fills["fee"])])
        fees = paid[np.searchsorted(fills["ts_ns"], series.t_ns, side="right")].tolist()
        pairs = zip(series.equity, fees, strict=True)
        return replace(series, equity_gross=[None if e is None else e + fee for e, fee in pairs])

    def _figures(self, p: int) -> BacktestFigures:
        slot = self.assembly.slots[p]
        charged = self.charged_ns() / 1e3
        quantile = (lambda q: float(np.quantile(charged, q))) if len(charged) else (lambda q: None)
        return BacktestFigures(
            strategy=slot.name,
            symbol=slot.instrument.symbol,
            currency=currency(slot.instrument),
            **asdict(self.metrics(p)),
            inference_latency_us=ChargedLatency(p50=quantile(0.5), p99=quantile(0.99)),
        )


def _plain(venue: VenueConfig) -> dict[str, Any]:
    """The venue's settings, ready for JSON."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in vars(venue).items()}


def run_backtest(
    config: SessionConfig,
    venue: VenueConfig | None = None,
    latency: InferenceLatency | None = None,
    progress: Progress | None = None,
) -> Report:
    """Backtest a session and report, as `Backtest` does.

    Args:
        config: the session.
        venue: the simulated venue; default: the config's gateway, else `VenueConfig()`.
        latency: what each inference is charged; default: what the gateway says, else what it takes
            in the backtest itself.
        progress: called with (events done, events in all).

    Raises:
        TickrtError: what stopped it.
    """
    with Backtest(config, venue, latency) as backtest:
        return backtest.run(progress)
