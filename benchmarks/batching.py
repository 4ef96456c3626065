"""What does the first of many symbols wait for when they all tick at once?

A session of many symbols, one model. Bursts of 1, 8, 32, 128 symbols become readable at the same
moment; noted is when the first one of each burst had its decision, when the last one had, and how
many rows a second that makes. By variant: models in the loop's own thread, one symbol after the
other (`native`, `onnxruntime`), and an engine host with a mailbox for all symbols, with batches of
up to 128 rows and of one.

    python -m benchmarks.batching [--model NAME] [--symbols N] [--bursts N]

First and last are read from the loop's own histogram of each burst, to 3 %. The variants take
turns, so that noise hits all. The result goes to ``results/batching.json``.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._batching_kernels import show
from benchmarks._machine import write_result
from tickrt.compile import codes
from tickrt.config import NullSettings, SessionConfig, StrategySettings
from tickrt.market.instrument import Instrument
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import Ring
from tickrt.observe.clock import ticks_per_ns
from tickrt.observe.histogram import bucket_top
from tickrt.runtime.session import Session

BURSTS = (1, 8, 32, 128)
LEVELS = 10  # that a message changes on each side
POOL = 16  # different messages of a symbol
PAUSE_S = 2e-3  # between bursts: what is off the path is done by then
EVENTS = 1 << 17
DECISION = codes.STAGE_TICK_TO_DECISION


# (settings of the session, whether the loop waits for each answer) by variant.
VARIANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "native, in the loop": ({"backend": "native"}, True),
    "onnxruntime, in the loop": ({"backend": "onnxruntime"}, True),
    "onnxruntime, in the loop, whole window": ({"backend": "onnxruntime", "split": False}, True),
    "host, one by one": ({"backend": "onnxruntime", "max_batch": 128}, True),
    "host, batches of up to 128": ({"backend": "onnxruntime", "max_batch": 128}, False),
}


def message(rng: np.random.Generator, symbol: int, fresh: bool) -> NDArray[np.void]:
    """One batch of a symbol's events: a snapshot, or new quantities at levels around the touch."""
    count = 50 if fresh else LEVELS
    data = np.zeros(2 * count + fresh, EVENT_DTYPE)
    kind = codes.SNAPSHOT if fresh else codes.DEPTH
    if fresh:
        data["ev"][0] = codes.CLEAR
    for side, sign, at in ((codes.BUY, -1, int(fresh)), (codes.SELL, 1, int(fresh) + count)):
        data["ev"][at : at + count] = kind | side
        data["px"][at : at + count] = 0.1 * (600_000 + sign * np.arange(1, count + 1))
        data["qty"][at : at + count] = rng.integers(1, 50, count)
    data["ev"] |= np.uint64(codes.LOCAL | codes.EXCH)
    data["ev"][-1] |= np.uint64(codes.BATCH_END)
    data["ival"] = symbol
    return data


@dataclass
class Market:
    """A session on a ring that this process feeds, and how far it has come."""

    session: Session
    ring: Ring
    thread: threading.Thread
    now_ns: int = 1_000_000_000

    @property
    def done(self) -> int:
        """Engine results so far, faults among them."""
        c = self.session.assembly.loop.counters
        return int(c[codes.COUNT_SIGNALS] + c[codes.COUNT_FAULTS])

    def publish(self, messages: list[NDArray[np.void]]) -> None:
        """All of them, readable at once."""
        self.now_ns += 10_000_000
        events = np.concatenate(messages)
        events["exch_ts"] = events["local_ts"] = self.now_ns
        view, first = self.ring.view, self.ring.published
        assert first + len(events) - self.ring.consumed <= self.ring.capacity
        view.events[np.arange(first, first + len(events)) & view.mask] = events
        show(view, len(events))

    def wait(self, over: Callable[[], bool], seconds: float = 60.0) -> None:
        """Until it is over, and what follows off the path."""
        end = time.monotonic() + seconds
        while not over():
            assert time.monotonic() < end, f"{self.done} results"
            time.sleep(100e-6)
        time.sleep(PAUSE_S)

    def close(self) -> None:
        """End the feed, the loop and the session."""
        self.ring.close()
        self.thread.join()
        self.session.close()


def open_market(model: str, symbols: int, variant: str) -> Market:
    """A session with one strategy on each symbol, its windows complete."""
    names = [f"S{i:03}" for i in range(symbols)]
    markets = [Instrument(name, tick_size=0.1, lot_size=0.001) for name in names]
    strategies = tuple(StrategySettings(name=n, symbol=n, model=model, shadow=True) for n in names)
    ring, (options, waits) = Ring.local(EVENTS), VARIANTS[variant]
    made = SessionConfig(
        data=(Path("none"),),
        strategies=strategies,
        gateway=NullSettings(),
        deadline_us=1e7,
        **options,
    )
    session = Session(made, feed=(ring.view, markets), keep_records=False)
    if waits:  # the loop waits for engines that answer one row
        session.assembly.loop.engines.table[:, codes.ENGINE_MAX_BATCH] = 1
    thread = threading.Thread(target=session.run)
    market = Market(session, ring, thread)
    thread.start()
    rng = np.random.default_rng(1)
    for i in range(session.assembly.slots[0].spec.window + 5):
        market.publish([message(rng, s, fresh=i == 0) for s in range(symbols)])
        market.wait(lambda: ring.consumed == ring.published)
    return market


def _has(market: Market, results: int) -> bool:
    return market.done >= results


def sent(market: Market) -> tuple[int, int]:
    """Rows and messages that a host which symbols share has taken."""
    engine: Any = market.session.assembly.engines[0]
    if not hasattr(engine, "host"):
        return 0, 0
    stats = engine.host.stats()
    return int(stats["rows"]), int(stats["messages"])


def play(market: Market, size: int, bursts: int) -> dict[str, NDArray[np.float64]]:
    """First and last decision of each burst, µs after its coming; the rate within it, rows/s."""
    rng = np.random.default_rng(size)
    pool = [[message(rng, s, fresh=False) for s in range(size)] for _ in range(POOL)]
    counts = market.session.assembly.loop.hist.buckets[DECISION]
    us = 1e-3 / ticks_per_ns()
    first, last = np.zeros(bursts), np.zeros(bursts)
    rows, messages = sent(market)
    for i in range(bursts):
        before, wanted = counts.copy(), market.done + size
        market.publish(pool[i % POOL])
        market.wait(partial(_has, market, wanted))
        (found,) = np.nonzero(counts - before)
        first[i], last[i] = bucket_top(int(found[0])) * us, bucket_top(int(found[-1])) * us
    found = {"first_us": first, "last_us": last, "rows_per_s": size / last * 1e6}
    all_rows, all_messages = sent(market)
    if all_messages > messages:
        found["rows_per_message"] = np.full(1, (all_rows - rows) / (all_messages - messages))
    return found


def shown(figures: list[dict[str, NDArray[np.float64]]]) -> dict[str, dict[str, float]]:
    """Percentiles over all bursts of one size."""
    joined = {name: np.concatenate([f[name] for f in figures]) for name in figures[0]}
    shares = {name: (50, 99) if name.endswith("_us") else (50,) for name in joined}
    return {
        name: {f"p{q}": float(f"{np.percentile(values, q):.3g}") for q in shares[name]}
        for name, values in joined.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the result; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="light_lstm")
    parser.add_argument("--symbols", type=int, default=128)
    parser.add_argument("--bursts", type=int, default=1000, help="of each size")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args(arguments)
    chosen = options.variants
    sizes = [size for size in BURSTS if size <= options.symbols]
    found: dict[str, dict[int, list[Any]]] = {v: {size: [] for size in sizes} for v in chosen}
    for _ in range(options.rounds):
        for name in chosen:
            market = open_market(options.model, options.symbols, name)
            try:
                for size in sizes:
                    found[name][size].append(play(market, size, options.bursts // options.rounds))
            finally:
                market.close()
    results = {v: {str(s): shown(f) for s, f in by.items()} for v, by in found.items()}
    for name, by_size in results.items():
        for size, figures in by_size.items():
            print(
                f"{name:24} burst {size:>3}: " + ", ".join(f"{k} {v}" for k, v in figures.items())
            )
    if not options.dry:
        facts = {
            "model": options.model,
            "symbols": options.symbols,
            "bursts": options.bursts,
            "note": "loop, engine host and whoever publishes share the cores of this machine; p99 "
            "is what they take from each other",
        }
        write_result("batching", {**facts, "variants": results})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
