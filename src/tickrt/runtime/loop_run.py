"""What a run and a backtest share: an assembled loop, the reader of its records, its end.

Entry point: `LoopRun`, the base of `runtime.session.Session` and `backtest.run.Backtest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.config import SessionConfig
from tickrt.errors import ConfigError, EngineError, raise_code
from tickrt.execution.gateways.gateway import GatewayLike, GatewayMaker
from tickrt.market.instrument import Instrument
from tickrt.memory.ring import FeedView
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.assembly import assemble
from tickrt.runtime.lifecycle import Companion, Ended, Progress, run_to_end
from tickrt.runtime.placement import Placement
from tickrt.runtime.recorder import Recorder
from tickrt.runtime.report_types import GpuUse, Report
from tickrt.runtime.results import Ran, counter, latency_of, loop_report
from tickrt.runtime.tables import Tables

__all__ = ["LoopRun"]


class LoopRun:
    """An assembled loop that runs once.

    Args:
        config: the session.
        markets: the instrument of each symbol index.
        feed: where the loop reads its events.
        gateway: who answers the orders, or what makes it; default: the one that `config` names.
        keep_records: hold every record, on disk, for `records` and its kin.
    """

    def __init__(
        self,
        config: SessionConfig,
        markets: Sequence[Instrument],
        feed: FeedView,
        gateway: GatewayLike | GatewayMaker | None = None,
        *,
        keep_records: bool = True,
    ) -> None:
        self.config, self.markets, self.feed = config, tuple(markets), feed
        self.startup_s = 0.0
        self._played = False
        self.compile_s = 0.0
        self.assembly = assemble(config, self.markets, feed, gateway)
        self.recorder = Recorder(self.assembly.records, len(self.assembly.slots), keep=keep_records)

    def _play(
        self,
        body: Callable[[], int],
        total: int,
        progress: Progress | None,
        companions: Sequence[Companion] = (),
        placement: Placement | None = None,
    ) -> Ended:
        """Run `body`, which calls the compiled loop, to its end.

        Raises:
            TickrtError: what stopped the loop, with the file and the event.
        """

        def tell() -> None:
            if progress is not None:
                progress(counter(self.assembly, "cursor"), total)

        ended = run_to_end(
            body,
            self.assembly.loop.stop,
            progress=tell,
            placement=placement,
            companions=[self.recorder, *companions],
        )
        problem = self.assembly.gateway.error()
        if ended.code < 0 and problem:
            raise EngineError(f"{self._where()}: {problem}")
        raise_code(ended.code, self._where())
        return ended

    def _play_once(self) -> None:
        """Files are read once.

        Raises:
            ConfigError: they were.
        """
        if self._played:
            raise ConfigError("files are played once: make a new session to play them again")
        self._played = True

    def _where(self) -> str:
        """The event at which the loop stopped, for a message."""
        names = ", ".join(str(path) for path in self.config.data)
        return f"{names}: event {counter(self.assembly, 'error_event')}"

    def records(self, kind: int) -> NDArray[np.void]:
        """Every record of a kind (`codes.RECORD_*`), in order, as its dtype in `memory.records`.

        Raises:
            ConfigError: they were not kept, or the session is closed.
        """
        return self.recorder.records(kind)

    def intents(self) -> NDArray[np.void]:
        """Every intent so far, in order: `INTENT_DTYPE`, as it was decided."""
        intents = self.records(codes.RECORD_INTENT)
        intents["record"] = 0  # says what it is in the stream only
        return intents

    def fills(self) -> NDArray[np.void]:
        """Every fill so far, in order: `FILL_DTYPE`."""
        return self.records(codes.RECORD_FILL)

    def signals(self) -> NDArray[np.void]:
        """What each decision was made on, in order: `SIGNAL_DTYPE`."""
        return self.records(codes.RECORD_SIGNAL)

    @property
    def tables(self) -> Tables:
        """The run's fills, orders, signals and latency as Arrow tables; ask before `close`.

        with Session(config) as session:
            session.run()
            print(session.tables.fills.to_pandas())
        """
        rate = ticks_per_ns()
        latency = latency_of(self.assembly, rate)
        return Tables(self.records, self.assembly.slots, self.markets, latency, rate)

    def _report_of(
        self,
        kind: Literal["run", "backtest"],
        ended: Ended,
        *,
        pace: str,
        config: Mapping[str, Any],
        floor: Mapping[str, Mapping[str, float]] | None = None,
        gpu: GpuUse | None = None,
        notes: Sequence[str] = (),
    ) -> Report:
        """The report of what was played; see `results.Ran` for the arguments."""
        ran = Ran(
            kind=kind,
            data=[str(path) for path in self.config.data],
            pace=pace,
            wall_s=ended.wall_s,
            compile_s=self.compile_s,
            startup_s=self.startup_s,
            config=config,
            floor=floor,
            interrupted=ended.interrupted,
            arranged=ended.arranged,
            gpu=gpu,
            notes=notes,
        )
        return loop_report(self.assembly, self.recorder, self.markets, ran)

    def close(self) -> None:
        """Release the engines, the gateway and what was kept."""
        self.assembly.close()
        self.recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
