"""All the memory of a running session, allocated once: what the compiled loop reads and writes.

Entry points: `Loop`, the one argument of the loop's kernels; `new_loop(…)`; the words for its
columns. Everything the loop tells the outside lies here: `counters`, histograms, the outbox (the
intents that passed risk, for the gateway) and the tape (what happened, for report and journal).

Invariants: no array is ever replaced while a loop runs; addresses in `Outbox` and `Loop` point into
arrays of the same `Loop`; a full tape loses records, never orders, and counts what it lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import BATCH_END
from tickrt.errors import ConfigError
from tickrt.execution.orders import Orders, new_fills, new_orders
from tickrt.feature.streams import Streams
from tickrt.market.book import Book
from tickrt.memory.records import FILL_DTYPE, INTENT_DTYPE, MAX_INTENTS
from tickrt.observe.histogram import Histograms, new_histograms
from tickrt.risk.limits import Risk
from tickrt.runtime.backends.handle import Engines
from tickrt.strategy.state import Mode, Strategies

__all__ = [
    "COUNTERS",
    "DECISION_DTYPE",
    "STAGES",
    "Loop",
    "Outbox",
    "Tape",
    "Wiring",
    "new_loop",
    "new_wiring",
    "tape_room",
]

# One histogram per stage, in this order.
STAGES = (
    "tick_to_order",  # event readable → order readable by the gateway
    "book",  # first event taken → book complete
    "features",
    "engine",
    "decision",  # signal → intents through risk, published
    "tick_to_decision",  # event readable → decision made, order or not
    "queued",  # event readable → loop takes it
    "advance",  # off-path work after the order
    "wait",  # part of `queued`: the loop was still preparing the engines' states
)

# Columns of `Loop.counters`.
COUNTERS = (
    "cursor",  # events of the feed that were consumed
    "events",  # applied
    "batches",
    "rows",
    "signals",  # engine results that were used
    "intents",  # that strategies wanted
    "orders",  # new orders that passed risk
    "cancels",  # that passed risk
    "fills",
    "faults",  # engine results that were missing, late, stale or not finite
    "fallbacks",  # decisions on the rule-based signal
    "lost",  # records that the tape had no room for
    "error",  # Code that stopped the loop
    "error_event",  # number of the event that did
    "open",  # 1: a batch has begun and is not complete
    "started",  # clock when the open batch's first event was taken
    "last_ts",  # local time of the newest event, ns
    "decisions",  # records on the tape
    "logged",  # intents on the tape
    "error_symbol",
    "advanced",  # clock when the last off-path work ended
    "waited",  # batches that came before it had ended
)

DECISION_DTYPE = np.dtype(
    [
        ("ts_ns", "i8"),
        ("seq", "i8"),
        ("mid2_tick", "i8"),  # best bid + best ask
        ("p_down", "f4"),
        ("p_flat", "f4"),
        ("p_up", "f4"),
        ("code", "i4"),  # errors.Code of the engine's result
        ("position", "i8"),  # lots, before this decision
        ("equity", "f8"),
        ("strategy", "i2"),
        ("symbol", "i2"),
        ("mode", "i2"),
        ("intents", "i2"),
    ],
    align=True,
)


class Wiring(NamedTuple):
    """Who listens to whom: item i drives items first[i] … first[i + 1] − 1 of the next kind."""

    streams: NDArray[np.int64]  # [S + 1] of a symbol
    engines: NDArray[np.int64]  # [K + 1] of a stream
    strategies: NDArray[np.int64]  # [E + 1] of an engine


class Outbox(NamedTuple):
    """Intents that passed risk: a ring that the gateway reads."""

    intents: NDArray[np.void]  # INTENT_DTYPE[capacity], a power of two
    counts: NDArray[np.int64]  # [16]: [0] published, [8] consumed
    address: NDArray[np.int64]  # [1] of counts


class Tape(NamedTuple):
    """What happened, in order."""

    decisions: NDArray[np.void]  # DECISION_DTYPE
    intents: NDArray[np.void]  # INTENT_DTYPE, those that risk refused too
    fills: NDArray[np.void]  # FILL_DTYPE


class Loop(NamedTuple):
    """The state of one hot loop."""

    book: Book
    streams: Streams
    engines: Engines
    strategies: Strategies
    orders: Orders
    risk: Risk
    wiring: Wiring
    outbox: Outbox
    tape: Tape
    hist: Histograms  # [STAGES]
    scratch: NDArray[np.void]  # INTENT_DTYPE[MAX_INTENTS]
    counters: NDArray[np.int64]  # [COUNTERS]
    home: NDArray[np.int64]  # [P] the mode that a strategy returns to when it is re-armed
    fresh: NDArray[np.int64]  # [K] number of the row that this batch made, 0 if none
    settings: NDArray[np.int64]  # [4]: healthy results that end a fallback; paper gateway on
    stop: NDArray[np.int64]  # [2]: address of [1]; [1] not 0 ends the loop


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


def tape_room(events: NDArray[np.void], strategies: int) -> int:
    """Records that a session over `events` may need: two per batch and strategy, within bounds."""
    batches = int(np.count_nonzero(events["ev"] & np.uint64(BATCH_END)))
    return min(max(2 * batches * strategies, 1 << 12), 1 << 22)


def _outbox(capacity: int) -> Outbox:
    counts = np.zeros(16, np.int64)
    return Outbox(
        np.zeros(capacity, INTENT_DTYPE), counts, np.array([counts.ctypes.data], np.int64)
    )


def _home(strategies: Strategies, risk: Risk) -> NDArray[np.int64]:
    """The modes that the strategies start in; one that starts halted is latched as such."""
    halted = strategies.mode == Mode.HALTED
    risk.halted[halted] = 1
    return np.where(halted, int(Mode.LIVE), strategies.mode)


def new_loop(
    book: Book,
    streams: Streams,
    engines: Engines,
    strategies: Strategies,
    risk: Risk,
    wiring: Wiring,
    *,
    tape_records: int = 1 << 16,
    outbox_records: int = 1 << 12,
    healthy_needed: int = 32,
    paper: bool = True,
) -> Loop:
    """Allocate the rest of a session's memory around its parts.

    Args:
        book: of the session's symbols; and so on for each part.
        tape_records: room for decisions; intents and fills have as much.
        outbox_records: capacity of the outbox, a power of two.
        healthy_needed: healthy results in a row that end a fallback.
        paper: answer orders by the built-in paper gateway.
    """
    stop = np.zeros(2, np.int64)
    stop[0] = stop.ctypes.data + 8
    settings = np.array([healthy_needed, int(paper), 0, 0], np.int64)
    return Loop(
        book=book,
        streams=streams,
        engines=engines,
        strategies=strategies,
        orders=new_orders(len(strategies.policy)),
        risk=risk,
        wiring=wiring,
        outbox=_outbox(outbox_records),
        tape=Tape(
            np.zeros(tape_records, DECISION_DTYPE),
            np.zeros(tape_records, INTENT_DTYPE),
            new_fills(tape_records),
        ),
        hist=new_histograms(len(STAGES)),
        scratch=np.zeros(MAX_INTENTS, INTENT_DTYPE),
        counters=np.zeros(len(COUNTERS), np.int64),
        home=_home(strategies, risk),
        fresh=np.zeros(len(streams.symbol), np.int64),
        settings=settings,
        stop=stop,
    )


assert FILL_DTYPE.itemsize == INTENT_DTYPE.itemsize == DECISION_DTYPE.itemsize == 64
