"""One turn of `benchmarks.revisions`, run with the sources of either revision on the path.

    python _revision_probe.py EVENTS.npz → JSON on stdout

It speaks only what every revision since the first understands: a session's configuration by name,
and a report as JSON.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

MANY = 1_000_000_000


def _module(*names: str) -> Any:
    """The first of `names` that this revision has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"none of {names}")


def _report(report: Any) -> dict[str, Any]:
    if isinstance(report, dict):
        return report
    made: dict[str, Any] = importlib.import_module("tickrt.report.report").to_json(report)
    return made


def _play(config: Any, shorten: int) -> dict[str, Any]:
    session_type = importlib.import_module("tickrt.runtime.session").Session
    takes = inspect.signature(session_type).parameters
    events = _module("tickrt.market.event_file", "tickrt.market.io").load_events(config.data[0])
    ring = _module("tickrt.memory.ring", "tickrt.feeds.ring")
    view, owner = ring.array_view(events.data[:shorten] if shorten else events.data)
    more = {"keep_records": False} if "keep_records" in takes else {}
    with session_type(config, feed=(view, [events.instrument]), **more) as session:
        made = _report(session.run())
    del owner
    return made


def pipeline(data: Path) -> dict[str, float]:
    """An order on every row, the null engine: tick-to-order in µs."""
    config = importlib.import_module("tickrt.config")
    params = importlib.import_module("tickrt.strategy.params")
    limits = _module("tickrt.risk.limits", "tickrt.strategy.risk")
    risk = limits.RiskLimits(
        max_data_age_ns=MANY * 1000,
        max_order_notional=1e15,
        price_collar=0.5,
        max_position_lots=MANY,
        duplicate_ns=0,
        max_messages=1024,
        message_window_ns=1,
        max_executions=MANY,
    )
    policy = params.TakerParams(max_position_lots=MANY, cooldown_ns=0, max_spread_ticks=MANY)
    strategy = config.StrategySettings(spec="light", policy=policy, risk=risk)
    made = config.SessionConfig(data=(data,), strategies=(strategy,), backend="null")
    report = _play(made, 0)
    latency = report["latency_us"]["tick_to_order"]
    return {
        **{f"pipeline tick-to-order {q}, µs": latency[q] for q in ("mean", "p50", "p99")},
        "pipeline, M events/s": report["events_per_s"] / 1e6,
    }


def rows(data: Path) -> dict[str, float]:
    """Book and light spec over the file, without a loop: M events/s."""
    io = _module("tickrt.market.event_file", "tickrt.market.io")
    file = io.load_events(data)
    collect = _module(
        "tickrt.feature.row_kernels", "tickrt.training.kernels", "tickrt.models.train_kernels"
    ).collect
    new_streams = _module("tickrt.feature.streams", "tickrt.features.streams").new_streams
    spec = _module("tickrt.feature.spec", "tickrt.features.spec").load_spec("light")
    new_book = importlib.import_module("tickrt.market.book").new_book
    np = importlib.import_module("numpy")
    tick, count = file.instrument.tick_size, len(file.data)
    best = 0.0
    for _ in range(4):  # the first compiles, or loads from the cache
        book, streams = new_book([tick]), new_streams([(0, spec, tick)])
        outputs = [np.zeros((count, spec.width), np.float32), np.zeros(count, np.int64)]
        outputs += [np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, np.int64)]
        started = time.perf_counter()
        collect(file.data, book, streams, *outputs)
        best = max(best, count / (time.perf_counter() - started) / 1e6)
    return {"book + features, M events/s": best}


def seed_model(data: Path) -> dict[str, float]:
    """The seed LSTM in the loop, split: engine and tick-to-decision in µs."""
    config = importlib.import_module("tickrt.config")
    strategy = config.StrategySettings(model="seed_lstm")
    report = _play(config.SessionConfig(data=(data,), strategies=(strategy,)), 60_000)
    latency = report["latency_us"]
    return {
        "seed LSTM engine p50, µs": latency["engine"]["p50"],
        "seed LSTM engine p99, µs": latency["engine"]["p99"],
        "seed LSTM tick-to-decision p50, µs": latency["tick_to_decision"]["p50"],
    }


if __name__ == "__main__":
    path = Path(sys.argv[1])
    print(json.dumps({**pipeline(path), **rows(path), **seed_model(path)}))
