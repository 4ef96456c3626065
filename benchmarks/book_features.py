"""How many events a second go through book and features on one core?

On the recorded BTC capture (`binance_cm`, two files as one session): the book alone, book and light
spec, book and the reference spec (402 numbers a row), beside hftbacktest and nautilus_trader (where
installed) on the same file in the same run. Contestants take turns, each repetition starts with an
empty book, medians are reported; all of them must end with the same best prices.

    python -m benchmarks.book_features [--data FILE.npz] [--repetitions N]

An event is one changed level, one trade or one clear; files are loaded and message objects are made
before the clock starts. Seconds are CPU time of the process, all of its threads: nobody is charged
for other work on the machine. The result goes to ``results/book_features.json``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _rivals
from benchmarks._book_features_kernels import replay_book, replay_rows
from benchmarks._machine import write_result
from tickrt.compile.codes import LOCAL
from tickrt.environment import data_folder
from tickrt.errors import raise_code
from tickrt.feature.spec import load_spec
from tickrt.feature.streams import new_streams
from tickrt.market.book import BEST_ASK, BEST_BID, new_book
from tickrt.market.event_file import EventFile, load_events
from tickrt.market.instrument import Instrument

ROOT = Path(__file__).resolve().parent.parent
CAPTURE = ("btcusd_perp_20240808.gz", "btcusd_perp_20240809.gz")
TARGETS = {"tickrt: book + light spec": 5e6, "tickrt: book + l2_100x100 spec": 1e6}
NOTE = (
    "hftbacktest plays each event twice, at the exchange and at the trader, with order queues; "
    "nautilus_trader's idle backtest includes its matching engine and a call into Python a message"
)


def recorded_capture() -> EventFile:
    """The BTC capture as an event file, converted anew into a temporary folder."""
    from tickrt.feeds.captures.convert import convert

    folder = data_folder(ROOT.parent / "shared" / "data") / "binance_cm"
    if not folder.is_dir():
        sys.exit(f"recorded market data is not in {folder}: set TICKRT_DATA, or give --data FILE")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "btcusd_perp.npz"
        convert([folder / name for name in CAPTURE], out)
        return load_events(out)


def tickrt_run(events: Any, instrument: Instrument, spec_name: str | None) -> _rivals.Run:
    """A replay through our kernels; the first call compiles them."""
    spec = load_spec(spec_name) if spec_name else None

    def run() -> tuple[float, int, int]:
        book = new_book([instrument.tick_size])
        streams = new_streams([(0, spec, instrument.tick_size)]) if spec else None
        start = time.process_time()
        code = replay_rows(events, book, streams) if streams else replay_book(events, book)
        seconds = time.process_time() - start
        raise_code(min(code, 0), "benchmark replay")
        return seconds, int(book.head[0, BEST_BID]), int(book.head[0, BEST_ASK])

    return run


def contestants(events: Any, instrument: Instrument, n: int) -> dict[str, tuple[_rivals.Run, int]]:
    """Name → (replay, events that it counts)."""
    found: dict[str, tuple[_rivals.Run, int]] = {
        "tickrt: book": (tickrt_run(events, instrument, None), n),
        "tickrt: book + light spec": (tickrt_run(events, instrument, "light"), n),
        "tickrt: book + l2_100x100 spec": (tickrt_run(events, instrument, "l2_100x100"), n),
    }
    for depth in ("roi", "hash"):
        run = _rivals.hftbacktest_idle(events, instrument, depth)
        found[f"hftbacktest: idle replay, {depth} depth"] = (run, n)
    try:
        found["nautilus_trader: order book"] = _rivals.nautilus_book(events, instrument)
        run = _rivals.nautilus_engine(events, instrument)
        found["nautilus_trader: idle backtest"] = (run, n)
    except ModuleNotFoundError as error:
        print(f"left out ({error}): pip install 'tickrt[bench]'")
    return found


def measure(events: Any, instrument: Instrument, repetitions: int) -> list[dict[str, Any]]:
    """All contestants in turns; one row each, with median, fastest and slowest repetition."""
    n = int(np.count_nonzero(events["ev"] & np.uint64(LOCAL)))
    entered = contestants(events, instrument, n)
    seconds: dict[str, list[float]] = {name: [] for name in entered}
    ends: dict[str, tuple[int, int]] = {}
    for repetition in range(repetitions + 1):  # the first compiles and warms up, and is not counted
        for name, (run, _) in entered.items():
            taken, bid, ask = run()
            ends[name] = (bid, ask)
            if repetition:
                seconds[name].append(taken)
    if len(set(ends.values())) != 1:
        sys.exit(f"the books differ at the end of the file: {ends}")
    rows = []
    for name, (_, count) in entered.items():
        median = statistics.median(seconds[name])
        rows.append(
            {
                "name": name,
                "events": count,
                "events_per_s": round(count / median),
                "ns_per_event": round(median / count * 1e9, 2),
                "fastest_events_per_s": round(count / min(seconds[name])),
                "slowest_events_per_s": round(count / max(seconds[name])),
                "target_events_per_s": TARGETS.get(name),
            }
        )
    return rows


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the JSON; 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.book_features")
    parser.add_argument("--data", type=Path, help="an event file instead of the recorded capture")
    parser.add_argument("--repetitions", type=int, default=9, help="default: 9")
    options = parser.parse_args(arguments)
    file = load_events(options.data) if options.data else recorded_capture()
    if file.instrument is None:
        sys.exit(f"{file.path}: names no instrument; make it with `tickrt data convert`")
    with one_core():
        rows = measure(file.data, file.instrument, max(1, options.repetitions))
    for row in rows:
        rate, cost = row["events_per_s"] / 1e6, row["ns_per_event"]
        print(f"{row['name']:42} {rate:8.2f} M events/s {cost:9.1f} ns/event")
    data = {
        "file": file.path.name,
        "symbol": file.instrument.symbol,
        "batches": file.meta.get("counts", {}).get("batches"),
    }
    path = write_result(
        "book_features",
        {
            "data": data,
            "clock": "CPU time of the process",
            "note": NOTE,
            "repetitions": options.repetitions,
            "results": rows,
        },
    )
    print(f"written: {path}")
    return int(any(row["events_per_s"] < (row["target_events_per_s"] or 0) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
