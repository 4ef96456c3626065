"""A small synthetic Binance session, message by message, that tests then break."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

START_NS = 1_723_161_256_000_000_000
START_MS = 1_723_161_256_000
SYMBOL = "BTCUSDT"


class Session:
    """Lines of a capture. Each message comes 10 ms after the one before; ids rise by 10."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.now_ms = 0
        self.last = 1000

    def add(self, message: dict[str, Any], *, latency_ms: int = 3) -> dict[str, Any]:
        local_ns = START_NS + (self.now_ms + latency_ms) * 1_000_000
        self.lines.append(b"%d %s" % (local_ns, json.dumps(message).encode()))
        return message

    def _tick(self) -> int:
        self.now_ms += 10
        return START_MS + self.now_ms

    def diff(
        self,
        bids: list[list[str]] | None = None,
        asks: list[list[str]] | None = None,
        symbol: str = SYMBOL,
        **changes: Any,
    ) -> dict[str, Any]:
        """A depthUpdate that continues the chain, unless `changes` say otherwise."""
        time = self._tick()
        data = {
            "e": "depthUpdate",
            "E": time,
            "T": time,
            "s": symbol,
            "U": self.last + 5,
            "u": self.last + 10,
            "pu": self.last,
            "b": [["100.0", "1.5"]] if bids is None else bids,
            "a": [["100.2", "2.5"]] if asks is None else asks,
        } | changes
        self.last = data["u"]
        return self.add({"stream": f"{symbol.lower()}@depth@0ms", "data": data})

    def lost_diff(self) -> None:
        """A depthUpdate that the recorder missed."""
        self.diff()
        self.lines.pop()

    def trade(self, px: str = "100.1", qty: str = "0.1", **changes: Any) -> dict[str, Any]:
        time = self._tick()
        data = {"e": "trade", "E": time, "T": time, "s": SYMBOL, "t": self.now_ms}
        data |= {"p": px, "q": qty, "X": "MARKET", "m": False} | changes
        return self.add({"stream": "btcusdt@trade", "data": data})

    def ticker(self, bid: str = "100.0", ask: str = "100.2", **changes: Any) -> dict[str, Any]:
        time = self._tick()
        data = {"e": "bookTicker", "u": self.last + 1, "s": SYMBOL, "b": bid, "B": "1.5"}
        data |= {"a": ask, "A": "2.5", "T": time, "E": time} | changes
        return self.add({"stream": "btcusdt@bookTicker", "data": data})

    def snapshot(self, last: int | None = None, **changes: Any) -> dict[str, Any]:
        time = self._tick()
        message = {
            "lastUpdateId": self.last if last is None else last,
            "E": time,
            "T": time,
            "bids": [["100.0", "1.0"], ["99.9", "3.0"]],
            "asks": [["100.2", "2.0"], ["100.3", "4.0"]],
        } | changes
        return self.add(message)

    def write(self, path: Path) -> Path:
        """Write the lines, gzip if the name ends so."""
        text = b"".join(line + b"\n" for line in self.lines)
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return path


@pytest.fixture
def session() -> Session:
    """An empty session."""
    return Session()


@pytest.fixture
def whole_session() -> Session:
    """Two early diffs, the snapshot that falls between them, diffs, trades and tickers."""
    made = Session()
    made.diff()  # stale: u 1010
    made.diff([["99.9", "7.0"]], [])  # u 1020: pu 1010 <= 1015 <= 1020
    made.trade()  # before the snapshot
    made.snapshot(last=1015)
    made.diff([["100.0", "0"]], [["100.1", "5.0"]])
    made.trade("100.1", "0.4")
    made.ticker("99.9", "100.1", u=made.last)
    made.diff([], [["100.1", "4.6"]])
    return made
