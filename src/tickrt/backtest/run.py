"""A backtest: the parts of a session, recorded events, hftbacktest as the venue, a report.

Entry points: ``run_backtest(config, venue, latency, progress)`` → the `Report`; `Backtest` for
what is behind it (intents, fills, marks, charged times).

The compiled loop runs in a thread without the GIL; the calling thread reads counters for the
progress bar. With the same files, models, parameters and charged times two backtests are equal byte
by byte.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.backtest.kernels import replay
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.metrics import measure
from tickrt.compile.codes import LOCAL, NEW
from tickrt.config import SessionConfig
from tickrt.errors import raise_code
from tickrt.execution.gateways.hftbacktest import VENUE_FAILED, VenueConfig, open_venue
from tickrt.market.event_file import instruments_of, load_events, merge_events
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.assembly import Assembly, assemble
from tickrt.runtime.loop.state import tape_room
from tickrt.runtime.report_types import (
    BacktestFigures,
    ChargedLatency,
    Metrics,
    Report,
    Series,
)
from tickrt.runtime.results import Ran, counter, currency, loop_report

__all__ = ["Backtest", "Clock", "Progress", "run_backtest"]

Progress = Callable[[int, int], None]
_POLL_S = 0.05


class Clock(NamedTuple):
    """The backtest's time, as compiled code sees it."""

    state: NDArray[np.int64]  # [4] busy until, inferences charged, next mark, marks written
    samples: NDArray[np.int64]  # [n] ns, charged in turn
    measure: NDArray[np.float64]  # [1] ns per clock tick where times are measured, else 0
    charged: NDArray[np.int64]  # [rows] what was charged, in order
    marks: NDArray[np.float64]  # [P, seconds + 3, 4] equity, fees, position, mid


class Backtest:
    """A backtest, built and ready to run once.

    Args:
        config: the session; its `paper` and `pace` are not used.
        venue: the simulated venue.
        latency: what each inference is charged.
    """

    def __init__(
        self,
        config: SessionConfig,
        venue: VenueConfig | None = None,
        latency: InferenceLatency | None = None,
    ) -> None:
        started = time.perf_counter()
        self.config = config
        self.venue_config = venue or VenueConfig()
        self.latency = latency or InferenceLatency.measured()
        files = [load_events(path) for path in config.data]
        self.markets = instruments_of(files, [s.symbol for s in config.strategies])
        self.events = merge_events(files)
        local = self.events["local_ts"][(self.events["ev"] & np.uint64(LOCAL)) != 0]
        self.seconds = (int(local[-1]) - int(local[0])) / 1e9
        records = config.tape_records or tape_room(self.events, len(config.strategies))
        self.assembly: Assembly = assemble(config, self.markets, records)
        # How long this machine takes must not change a backtest: `latency` says how late we are.
        self.assembly.loop.engines.deadline[:] = np.iinfo(np.int64).max
        data = [(file.data, market) for file, market in zip(files, self.markets, strict=True)]
        self.venue = open_venue(self.venue_config, data, len(config.strategies))
        rate = 1.0 / ticks_per_ns() if self.latency.measure else 0.0
        self.clock = Clock(
            state=np.zeros(4, np.int64),
            samples=self.latency.samples_ns,
            measure=np.array([rate]),
            charged=np.zeros(records, np.int64),
            marks=np.zeros((len(config.strategies), int(self.seconds) + 3, 4)),
        )
        self.startup_s = time.perf_counter() - started
        self.compile_s = 0.0

    def run(self, progress: Progress | None = None) -> Report:
        """Run to the end of the data and report.

        Args:
            progress: called with (events done, events in all) from this thread.

        Raises:
            TickrtError: what stopped it.
        """
        result: list[int] = []
        times: list[float] = []

        def hot() -> None:
            args = (self.assembly.loop, self.venue.venue, self.clock)
            times.append(time.perf_counter())
            self.assembly.loop.stop[1] = 1  # compile, or load from the cache, without a batch
            replay(self.events[:0], *args)
            self.assembly.loop.stop[1] = 0
            self.clock.state.fill(0)
            times.append(time.perf_counter())
            result.append(int(replay(self.events, *args)))
            times.append(time.perf_counter())

        gc.collect()
        thread = threading.Thread(target=hot, name="tickrt-backtest", daemon=True)
        thread.start()
        interrupted = False
        while thread.is_alive():
            try:
                thread.join(_POLL_S)
                if progress is not None:
                    progress(counter(self.assembly, "cursor"), len(self.events))
            except KeyboardInterrupt:
                self.assembly.loop.stop[1], interrupted = 1, True
        if result[0] == VENUE_FAILED:
            self.venue.raise_error()
        names = ", ".join(str(path) for path in self.config.data)
        raise_code(result[0], f"{names}: event {counter(self.assembly, 'error_event')}")
        self.compile_s = times[1] - times[0]
        return self._report(times[2] - times[1], interrupted)

    def intents(self) -> NDArray[np.void]:
        """Every intent so far, in order: `INTENT_DTYPE`."""
        return self.assembly.loop.tape.intents[: counter(self.assembly, "logged")]

    def fills(self) -> NDArray[np.void]:
        """Every fill so far, in order: `FILL_DTYPE`."""
        tape = self.assembly.loop.tape.fills
        return tape[: min(counter(self.assembly, "fills"), len(tape))]

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

    def close(self) -> None:
        """Release the engines and the venue."""
        self.assembly.close()
        self.venue.close()

    def __enter__(self) -> Backtest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _report(self, wall_s: float, interrupted: bool) -> Report:
        refused = int(self.venue.venue.times[3])
        report = loop_report(
            self.assembly,
            self.markets,
            Ran(
                kind="backtest",
                data=[str(path) for path in self.config.data],
                pace="max",
                wall_s=wall_s,
                compile_s=self.compile_s,
                startup_s=self.startup_s,
                config={
                    **self.config.model_dump(mode="json"),
                    "venue": _plain(self.venue_config),
                    "inference_latency": self.latency.source,
                },
                interrupted="SIGINT" if interrupted else None,
                notes=[f"the venue refused {refused} orders"] if refused else [],
            ),
        )
        figures = [self._figures(p) for p in range(len(self.assembly.slots))]
        return replace(
            report,
            series=[self._with_gross(p, series) for p, series in enumerate(report.series)],
            backtest=figures[0],
            backtest_by_strategy=figures,
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
    values = dict(vars(venue))
    values["latency_file"] = None if venue.latency_file is None else str(venue.latency_file)
    return values


def run_backtest(
    config: SessionConfig,
    venue: VenueConfig | None = None,
    latency: InferenceLatency | None = None,
    progress: Progress | None = None,
) -> Report:
    """Backtest a session and report, as `Backtest` does.

    Args:
        config: the session.
        venue: the simulated venue; default: `VenueConfig()`.
        latency: what each inference is charged; default: what it takes in the backtest itself.
        progress: called with (events done, events in all).

    Raises:
        TickrtError: what stopped it.
    """
    with Backtest(config, venue, latency) as backtest:
        return backtest.run(progress)
