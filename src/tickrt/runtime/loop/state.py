"""All the memory of a running session, allocated once: what the compiled loop reads and writes.

Entry points: `Loop`, the one argument of the loop's kernels; `new_loop(…)`; the words for its
columns. Everything the loop tells the outside lies here: `counters`, histograms, the two queues of
the gateway, and the ring of records (what happened, in order: for report, journal and page).

Invariants: no array is ever replaced while a loop runs; addresses in a `Loop` point into memory
that its rings hold; a full record ring loses records, never orders, and counts what it lost by
kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.compile.codes import RECORD_KINDS
from tickrt.errors import ConfigError
from tickrt.execution.gateways.gateway import GatewayLike
from tickrt.execution.orders import Orders, new_orders
from tickrt.feature.streams import Streams
from tickrt.market.book import Book
from tickrt.market.deferred import Deferred, new_deferred
from tickrt.memory.records import (
    CLOCK_DTYPE,
    FILL_DTYPE,
    INTENT_DTYPE,
    MAX_INTENTS,
    MODE_DTYPE,
    ORDER_DTYPE,
    RECORD_DTYPE,
    REPORT_DTYPE,
    ROW_DTYPE,
    SIGNAL_DTYPE,
)
from tickrt.memory.ring import FeedView, Ring
from tickrt.observe.histogram import Histograms, new_histograms
from tickrt.risk.limits import Risk
from tickrt.runtime.backends.handle import Engines
from tickrt.strategy.state import Mode, Strategies

__all__ = [
    "COUNTERS",
    "RECORDS",
    "STAGES",
    "Loop",
    "LoopSettings",
    "RecordRing",
    "Wiring",
    "new_loop",
    "new_wiring",
]

RECORDS = 1 << 16  # room of the record ring: 4 MiB


def _names(prefix: str) -> tuple[str, ...]:
    """The words for `codes.PREFIX_*`, in the order of their numbers."""
    numbers = {v: n.removeprefix(prefix) for n, v in vars(codes).items() if n.startswith(prefix)}
    return tuple(numbers[i].lower() for i in range(len(numbers)))


STAGES = _names("STAGE_")  # one histogram each
COUNTERS = _names("COUNT_")  # columns of `Loop.counters`


class Wiring(NamedTuple):
    """Who listens to whom: item i drives items first[i] … first[i + 1] − 1 of the next kind."""

    streams: NDArray[np.int64]  # [S + 1] of a symbol
    engines: NDArray[np.int64]  # [K + 1] of a stream
    strategies: NDArray[np.int64]  # [E + 1] of an engine


class Flights(NamedTuple):
    """Rows whose answer the loop does not wait for: it takes other symbols' batches meanwhile.

    L lanes of engines that answer in order, R rows of the engine table, S symbols.
    """

    queue: NDArray[np.int64]  # [L, R] rows of the engine table, a ring
    head: NDArray[np.int64]  # [L] of them landed
    tail: NDArray[np.int64]  # [L] of them begun
    left: NDArray[np.int64]  # [S] answers that are still to come
    batch: NDArray[np.int64]  # [S, 6] what the symbol's batch was: columns in `flight_kernels`
    total: NDArray[np.int64]  # [1] answers that are still to come in all


def _new_flights(engines: Engines, symbols: int) -> Flights:
    lanes = int(engines.lane.max()) + 1
    return Flights(
        queue=np.zeros((lanes, len(engines.table)), np.int64),
        head=np.zeros(lanes, np.int64),
        tail=np.zeros(lanes, np.int64),
        left=np.zeros(symbols, np.int64),
        batch=np.zeros((symbols, 6), np.int64),
        total=np.zeros(1, np.int64),
    )


class RecordRing(NamedTuple):
    """The record ring as the loop writes it: the same slots seen as each kind of record."""

    rows: NDArray[np.void]
    signals: NDArray[np.void]
    intents: NDArray[np.void]
    orders: NDArray[np.void]
    reports: NDArray[np.void]
    fills: NDArray[np.void]
    modes: NDArray[np.void]
    clocks: NDArray[np.void]
    mask: int
    published: int  # address of the count that may be read
    consumed: int  # address of the count that was read
    base: int  # address of the first slot
    state: NDArray[np.int64]  # [2] next record to write; where the room ends as far as we know
    lost: NDArray[np.int64]  # [RECORD_KINDS] records that found no room


class Loop(NamedTuple):
    """The state of one hot loop."""

    book: Book
    deferred: Deferred  # levels of the batch at hand that are applied after its orders are out
    streams: Streams
    engines: Engines
    strategies: Strategies
    orders: Orders
    risk: Risk
    wiring: Wiring
    gateway: NDArray[np.int64]  # [4] the gateway's handle
    order_queue: FeedView  # INTENT_DTYPE: the intents that passed risk, for the gateway
    report_queue: FeedView  # REPORT_DTYPE: what the gateway reports
    records: RecordRing
    hist: Histograms  # [STAGES]
    scratch: NDArray[np.void]  # INTENT_DTYPE[MAX_INTENTS]
    signal: NDArray[np.float64]  # [3] (down, flat, up) of the decision at hand
    counters: NDArray[np.int64]  # [COUNTERS]
    home: NDArray[np.int64]  # [P] the mode that a strategy returns to when it is re-armed
    fresh: NDArray[np.int64]  # [K] number of the row that its last batch made, 0 if none
    flights: Flights
    settings: NDArray[np.int64]  # [4]: healthy results that end a fallback; wait for the records
    stop: NDArray[np.int64]  # [2]: address of [1]; [1] not 0 ends the loop


@dataclass(frozen=True)
class LoopSettings:
    """How a loop behaves.

    Attributes:
        healthy_needed: healthy results in a row that end a fallback.
        wait_for_records: 1: before a batch wait until its records are sure to find room, for
            replays, where time stands still meanwhile; 0: never wait, count what is lost.
    """

    healthy_needed: int = 32
    wait_for_records: bool = False


def _first(owners: Sequence[int], count: int, what: str) -> NDArray[np.int64]:
    """CSR offsets of sorted `owners`."""
    if list(owners) != sorted(owners):
        raise ConfigError(f"{what} must be listed in the order of what they listen to: {owners}")
    if owners and not 0 <= owners[0] <= owners[-1] < count:
        raise ConfigError(f"{what} listen to {sorted(set(owners))}, expected 0…{count - 1}")
    return np.searchsorted(np.array(owners, np.int64), np.arange(count + 1)).astype(np.int64)


def new_wiring(
    symbols: int,
    stream_symbol: Sequence[int],
    engine_stream: Sequence[int],
    strategy_engine: Sequence[int],
) -> Wiring:
    """Offsets from who-listens-to-whom lists, each sorted.

    Raises:
        ConfigError: a list is not sorted or names what does not exist.
    """
    return Wiring(
        streams=_first(stream_symbol, symbols, "streams"),
        engines=_first(engine_stream, len(stream_symbol), "engines"),
        strategies=_first(strategy_engine, len(engine_stream), "strategies"),
    )


def _record_ring(ring: Ring) -> RecordRing:
    """`ring` (RECORD_DTYPE) as each kind of record."""
    memory: NDArray[Any] = ring.view.events
    return RecordRing(
        rows=memory.view(ROW_DTYPE),
        signals=memory.view(SIGNAL_DTYPE),
        intents=memory.view(INTENT_DTYPE),
        orders=memory.view(ORDER_DTYPE),
        reports=memory.view(REPORT_DTYPE),
        fills=memory.view(FILL_DTYPE),
        modes=memory.view(MODE_DTYPE),
        clocks=memory.view(CLOCK_DTYPE),
        mask=ring.view.mask,
        published=ring.view.published,
        consumed=ring.view.consumed,
        base=int(memory.ctypes.data),
        state=np.zeros(2, np.int64),
        lost=np.zeros(RECORD_KINDS, np.int64),
    )


def _home(strategies: Strategies, risk: Risk) -> NDArray[np.int64]:
    """The modes that the strategies start in; one that starts halted is latched as such."""
    halted = strategies.mode == Mode.HALTED
    risk.halted[halted] = 1
    return np.where(halted, int(Mode.LIVE), strategies.mode)


def _depths(symbols: int, streams: Streams) -> list[int]:
    """For each symbol the levels a side that its deepest stream reads."""
    depths = [0] * symbols
    for symbol, depth in zip(streams.symbol.tolist(), streams.depth.tolist(), strict=True):
        depths[symbol] = max(depths[symbol], depth)
    return depths


def new_loop(
    book: Book,
    streams: Streams,
    engines: Engines,
    strategies: Strategies,
    risk: Risk,
    wiring: Wiring,
    queues: tuple[GatewayLike, Ring],
    settings: LoopSettings | None = None,
) -> Loop:
    """Allocate the rest of a session's memory around its parts.

    Args:
        book: of the session's symbols; and so on for each part.
        queues: the gateway that answers the orders, and the ring of records (`RECORD_DTYPE`).
            Keep both alive while the loop is.
        settings: default: `LoopSettings()`.

    Raises:
        ConfigError: the ring is not one of records.
    """
    gateway, records = queues
    if records.dtype != RECORD_DTYPE:
        raise ConfigError(f"records: expected a ring of RECORD_DTYPE, got {records.dtype.names}")
    chosen = settings or LoopSettings()
    stop = np.zeros(2, np.int64)
    stop[0] = stop.ctypes.data + 8
    return Loop(
        book=book,
        deferred=new_deferred(_depths(len(book.inv_tick), streams)),
        streams=streams,
        engines=engines,
        strategies=strategies,
        orders=new_orders(len(strategies.policy)),
        risk=risk,
        wiring=wiring,
        gateway=gateway.handle(),
        order_queue=gateway.orders.view,
        report_queue=gateway.reports.view,
        records=_record_ring(records),
        hist=new_histograms(len(STAGES)),
        scratch=np.zeros(MAX_INTENTS, INTENT_DTYPE),
        signal=np.zeros(3),
        counters=np.zeros(len(COUNTERS), np.int64),
        home=_home(strategies, risk),
        fresh=np.zeros(len(streams.symbol), np.int64),
        flights=_new_flights(engines, len(book.inv_tick)),
        settings=np.array([chosen.healthy_needed, int(chosen.wait_for_records), 0, 0], np.int64),
        stop=stop,
    )
