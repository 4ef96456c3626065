"""What is in an event file: `describe` gives it as a plain dict, ready for JSON or a table."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import KIND_MASK, LOCAL, TRADE
from tickrt.feeds.captures.convert import count_events
from tickrt.feeds.captures.replay import Replay, guess_tick_size, replay_book
from tickrt.market.event_file import load_events

__all__ = ["describe"]


def describe(path: str | Path, *, tick_size: float | None = None) -> dict[str, Any]:
    """Read an event file, play it through a book and say what is in it.

    Args:
        path: an event file of one symbol, ours or hftbacktest's.
        tick_size: in quote currency; None: the file's instrument, else guessed from the prices.

    Returns:
        ``path, size_bytes, symbol, instrument, source``; ``rows`` in the file, ``events`` (LOCAL
        ones) and ``batches``; ``kinds``: events by kind; ``time``; ``latency_ms`` (local minus
        exchange time); ``price`` (of the book's best prices and of trades), ``levels``; ``book``
        (crossed batches, refused events); ``rates``; ``gaps``, ``dropped_messages``,
        ``dropped_events`` as counted by the conversion (None where the file does not say).

    Raises:
        DataError: the file is not an event file, or is damaged.
    """
    file = load_events(path)
    events, meta = file.data, dict(file.meta or {})
    counts = count_events(events)
    batches, rows = counts.pop("batches"), counts.pop("rows")
    local = events[(events["ev"] & np.uint64(LOCAL)) != 0]
    guessed = tick_size is None and file.instrument is None
    if tick_size is None:
        tick_size = file.instrument.tick_size if file.instrument else guess_tick_size(events)
    replay = replay_book(events, tick_size)
    messages = meta.get("messages", {})
    return {
        "path": str(path),
        "size_bytes": Path(path).stat().st_size,
        "symbol": meta.get("symbol"),
        "instrument": file.instrument.to_dict() if file.instrument else None,
        "source": meta.get("source"),
        "rows": rows,
        "events": len(local),
        "batches": batches,
        "kinds": counts,
        "time": _time(local),
        "latency_ms": _latency(local),
        "price": {**_price(local, replay, tick_size), "tick_size_guessed": guessed},
        "levels": _levels(replay),
        "book": _book(events, replay),
        "rates": _rates(local, batches),
        "gaps": meta.get("gaps"),
        "dropped_messages": messages.get("dropped_messages"),
        "dropped_events": messages.get("dropped_events"),
    }


def _time(local: npt.NDArray[Any]) -> dict[str, Any]:
    if not len(local):
        return {"first_ns": None, "last_ns": None, "first_utc": None, "span_s": 0.0}
    first, last = int(local["local_ts"][0]), int(local["local_ts"][-1])
    moment = datetime.fromtimestamp(first // 1_000_000_000, UTC)
    return {
        "first_ns": first,
        "last_ns": last,
        "first_utc": moment.isoformat().replace("+00:00", "Z"),
        "span_s": (last - first) / 1e9,
    }


def _latency(local: npt.NDArray[Any]) -> dict[str, float] | None:
    if not len(local):
        return None
    latency = (local["local_ts"] - local["exch_ts"]) / 1e6
    p50, p99 = np.percentile(latency, [50, 99])
    return {
        "min": float(latency.min()),
        "p50": float(p50),
        "p99": float(p99),
        "max": float(latency.max()),
    }


def _price(local: npt.NDArray[Any], replay: Replay, tick_size: float) -> dict[str, Any]:
    digits = max(0, round(-np.log10(tick_size)) + 2)
    traded = local["px"][(local["ev"] & np.uint64(KIND_MASK)) == TRADE]
    whole = replay.two_sided
    bid, ask = replay.bid[whole] * tick_size, replay.ask[whole] * tick_size
    spread = replay.ask[whole] - replay.bid[whole]

    def value(number: Any) -> float:
        return float(round(float(number), digits))

    return {
        "tick_size": tick_size,
        "lowest_bid": value(bid.min()) if len(bid) else None,
        "highest_ask": value(ask.max()) if len(ask) else None,
        "first_mid": value((bid[0] + ask[0]) / 2) if len(bid) else None,
        "last_mid": value((bid[-1] + ask[-1]) / 2) if len(bid) else None,
        "lowest_trade": value(traded.min()) if len(traded) else None,
        "highest_trade": value(traded.max()) if len(traded) else None,
        "median_spread_ticks": float(np.median(spread)) if len(spread) else None,
    }


def _levels(replay: Replay) -> dict[str, Any]:
    def side(levels: npt.NDArray[np.int64]) -> dict[str, int]:
        levels = levels[replay.two_sided]
        if not len(levels):
            return {"min": 0, "max": 0, "last": 0}
        return {"min": int(levels.min()), "max": int(levels.max()), "last": int(levels[-1])}

    return {"bid": side(replay.bid_levels), "ask": side(replay.ask_levels)}


def _book(events: npt.NDArray[Any], replay: Replay) -> dict[str, Any]:
    crossed = np.flatnonzero(replay.crossed)
    first = int(replay.row[crossed[0]]) if len(crossed) else None
    return {
        "crossed_batches": len(crossed),
        "first_crossed_row": first,
        "first_crossed_local_ns": int(events["local_ts"][first]) if first is not None else None,
        "one_sided_batches": int(np.count_nonzero(~replay.two_sided)),
        "refused_events": replay.refused,
        "first_refused_row": replay.refused_row if replay.refused else None,
    }


def _rates(local: npt.NDArray[Any], batches: int) -> dict[str, float]:
    if not len(local):
        return {"events_per_s": 0.0, "batches_per_s": 0.0, "peak_1s": 0.0, "peak_10ms": 0.0}
    since = local["local_ts"] - local["local_ts"][0]
    span_s = max(float(since[-1]) / 1e9, 1e-9)

    def peak(window_ns: int) -> float:
        _, counts = np.unique(since // window_ns, return_counts=True)
        return float(counts.max())

    return {
        "events_per_s": len(local) / span_s,
        "batches_per_s": batches / span_s,
        "peak_1s": peak(1_000_000_000),
        "peak_10ms": peak(10_000_000),
    }
