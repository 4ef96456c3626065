"""Binance futures (COIN-M and USD-M) websocket messages → events. No I/O, no clock.

`BinanceCodec.decode` takes one raw message (the JSON of a combined or of a plain stream, or a REST
depth snapshot) with the time at which it was received, and appends its events to an `EventBuffer`.

The book is kept in step as Binance documents it ("How to manage a local order book correctly",
derivatives API): diffs before the snapshot are held back; those with ``u < lastUpdateId`` are
stale; the first one used has ``pu <= lastUpdateId <= u``; from then on each ``pu`` is the previous
``u``. Diffs that were held back are emitted with the snapshot as one batch, at the snapshot's
receive time, because that is when a reader could know them. A snapshot while the chain is whole is
not needed and is ignored.

Events: CLEAR (no side: everything) and SNAPSHOT, DEPTH, TRADE, and BBO for bookTicker if wanted.
``order_id`` holds the update id (`u`, `lastUpdateId`) or the trade id; ``exch_ts`` is the matching
engine's time `T`; the last event of each message carries BATCH_END.

`on_gap="error"`: a broken chain raises GapError, an unusable message DataError; nothing of it is
appended. `on_gap="resync"`: an unusable message is dropped and counted, and if it belonged to the
chain the next diff shows it; a broken chain drops everything until the next snapshot.

Limits: futures only (spot diffs have no `pu`); trades that are not from the market (insurance fund,
ADL) are left out, as hftbacktest does; aggTrade, mark prices and others are counted, not decoded.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from tickrt.compile.codes import BBO, BUY, CLEAR, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT, TRADE
from tickrt.errors import DataError, GapError
from tickrt.feeds.codecs.buffer import EventBuffer
from tickrt.literals import OnGap

__all__ = ["BinanceCodec", "CodecStats"]


_MS = 1_000_000
_BOTH = EXCH | LOCAL
_HELD_MAX = 65_536  # messages held back while there is no snapshot; the oldest go first
_RESYNC = "record again, or use --on-gap resync, which drops up to the next snapshot"
_decode_json: Callable[[str], Any] = json.JSONDecoder().decode
_WAITING, _JOINING, _SYNCED = range(3)


class _Unusable(DataError):
    """One message cannot be used; the ones after it may be."""


@dataclass
class CodecStats:
    """What a codec has seen; counts of messages unless the name says events."""

    depth: int = 0
    trade: int = 0
    bbo: int = 0
    snapshot: int = 0
    ignored: dict[str, int] = field(default_factory=dict)  # other kinds, by name
    other_symbol: int = 0
    stale: int = 0  # diffs that the snapshot, or the book, already held
    before_snapshot: int = 0  # came before the first snapshot and are not part of it
    malformed: int = 0
    time_back: int = 0
    gaps: int = 0
    dropped_messages: int = 0  # because of a gap, up to the next snapshot
    dropped_events: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As a plain dict, ready for JSON."""
        return asdict(self)


class _Side(NamedTuple):
    px: list[float]
    qty: list[float]


class _Diff(NamedTuple):
    first: int
    last: int
    previous: int
    exch_ns: int
    bids: _Side
    asks: _Side


class _Snapshot(NamedTuple):
    last: int
    exch_ns: int
    bids: _Side
    asks: _Side


class BinanceCodec:
    """Decodes the messages of one symbol, in the order in which they were received.

    Args:
        symbol: the symbol to keep; messages of others are counted and left out. None: the first
            symbol that comes, and any other one is an error.
        on_gap: what to do about a broken chain or an unusable message; see the module.
        keep_bbo: emit bookTicker messages as BBO events.

    Attributes:
        stats: counts of what was seen and dropped.
        venue: ``binance_cm`` or ``binance_usdm``, "" before the first message with a symbol.
    """

    def __init__(
        self, *, symbol: str | None = None, on_gap: OnGap = "error", keep_bbo: bool = False
    ) -> None:
        self.symbol = symbol.upper() if symbol else ""
        self.venue = ""
        self.stats = CodecStats()
        self._only = symbol is not None
        self._resync = on_gap == "resync"
        self._keep_bbo = keep_bbo
        self._state = _WAITING
        self._had_snapshot = False
        self._nameless_snapshot = False
        self._last = -1  # newest update id in the book
        self._diff_exch_ns = 0  # of the newest diff, as it said
        self._last_exch_ns = 0  # as emitted: not before the snapshot's
        self._last_local_ns = 0
        self._held: deque[_Diff] = deque()
        self._spare: _Snapshot | None = None
        self._handlers: dict[str, Callable[[dict[str, Any], int, EventBuffer], None]] = {
            "depthUpdate": self._on_depth,
            "trade": self._on_trade,
            "bookTicker": self._on_ticker,
        }

    @property
    def synced(self) -> bool:
        """Whether the events so far make a valid book. A live feed fetches a snapshot if not."""
        return self._state != _WAITING

    def decode(self, raw: bytes, local_ns: int, out: EventBuffer) -> int:
        """Append the events of one message.

        Args:
            raw: the message's JSON, as received.
            local_ns: when it was received, ns; must not go back.
            out: where its events are appended.

        Returns:
            How many events were appended.

        Raises:
            GapError: the chain is broken (`on_gap="error"`).
            DataError: the message is unusable (`on_gap="error"`), or of a second symbol.
        """
        before = out.count
        try:
            if local_ns < self._last_local_ns:
                self.stats.time_back += 1
                raise _Unusable(
                    f"receive time goes back by {self._last_local_ns - local_ns} ns: "
                    f"give files in the order of recording; {_RESYNC}"
                )
            self._route(self._parse(raw), local_ns, out)
            self._last_local_ns = local_ns
        except _Unusable:
            if not self._resync:
                raise
            self.stats.dropped_messages += 1
        return out.count - before

    def decode_snapshot(self, raw: bytes, local_ns: int, out: EventBuffer) -> int:
        """Append a snapshot that is known to be this symbol's, though it does not name it.

        Args, returns and raises as `decode`.
        """
        before = out.count
        message = self._parse(raw)
        if "lastUpdateId" not in message.get("data", message):
            raise self._malformed("expected a depth snapshot with 'lastUpdateId'")
        self._route(message, local_ns, out)
        self._nameless_snapshot = False
        self._last_local_ns = max(self._last_local_ns, local_ns)
        return out.count - before

    def _route(self, message: dict[str, Any], local_ns: int, out: EventBuffer) -> None:
        data = message.get("data", message)
        if not isinstance(data, dict):
            raise self._malformed("expected a JSON object under 'data'")
        kind = data.get("e")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        try:
            if handler is not None:
                if self._is_ours(data["s"], "ps" in data):
                    handler(data, local_ns, out)
            elif "lastUpdateId" in data:
                self._on_snapshot(data, local_ns, out)
            elif kind is not None or "result" in data or "code" in data:
                name = str(kind or "reply")
                self.stats.ignored[name] = self.stats.ignored.get(name, 0) + 1
            else:
                raise self._malformed("neither a Binance stream message nor a snapshot")
        except KeyError as error:
            raise self._malformed(f"{kind or 'snapshot'} without {error}") from None
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise self._malformed(f"{kind or 'snapshot'}: {error}") from None

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            message = _decode_json(raw.decode())
        except (ValueError, RecursionError) as error:
            raise self._malformed(f"not JSON ({error})") from None
        if not isinstance(message, dict):
            raise self._malformed("expected a JSON object")
        return message

    def _malformed(self, text: str) -> _Unusable:
        self.stats.malformed += 1
        return _Unusable(f"malformed message: {text}; {_RESYNC}")

    def _is_ours(self, symbol: str, coin_margined: bool) -> bool:
        if symbol == self.symbol:
            if not self.venue:
                self.venue = "binance_cm" if coin_margined else "binance_usdm"
            return True
        if not self.symbol:
            self.symbol = str(symbol)
            self.venue = "binance_cm" if coin_margined else "binance_usdm"
            return True
        if not self._only:
            raise DataError(
                f"messages of {self.symbol} and of {symbol} in one session: "
                f"choose one with --symbol {self.symbol}"
            )
        if self._nameless_snapshot:
            raise DataError(
                f"messages of {self.symbol} and of {symbol} with a snapshot that names no symbol: "
                "give the snapshot of the symbol as a file of its own (--snapshot)"
            )
        self.stats.other_symbol += 1
        return False

    def _on_trade(self, data: dict[str, Any], local_ns: int, out: EventBuffer) -> None:
        if data.get("X", "MARKET") != "MARKET":
            name = f"trade {data['X']}"
            self.stats.ignored[name] = self.stats.ignored.get(name, 0) + 1
            return
        self.stats.trade += 1
        side = _side([(data["p"], data["q"])])
        exch_ns, trade_id = _time(data), _id(data, "t")
        aggressor = SELL if data["m"] else BUY
        if self._state == _WAITING:
            self._drop(1)
            return
        out.put(TRADE | aggressor | _BOTH, exch_ns, local_ns, trade_id, *side)
        out.end_batch()

    def _on_ticker(self, data: dict[str, Any], local_ns: int, out: EventBuffer) -> None:
        self.stats.bbo += 1
        if not self._keep_bbo:
            return
        bid, ask = _side([(data["b"], data["B"])]), _side([(data["a"], data["A"])])
        exch_ns, last = _time(data), _id(data, "u")
        if self._state == _WAITING:
            self._drop(2)
            return
        out.put(BBO | BUY | _BOTH, exch_ns, local_ns, last, *bid)
        out.put(BBO | SELL | _BOTH, exch_ns, local_ns, last, *ask)
        out.end_batch()

    def _on_depth(self, data: dict[str, Any], local_ns: int, out: EventBuffer) -> None:
        if "pu" not in data:
            raise DataError("depthUpdate without 'pu': spot captures are not supported")
        diff = _Diff(
            _id(data, "U"),
            _id(data, "u"),
            _id(data, "pu", -1),
            _time(data),
            _side(data["b"]),
            _side(data["a"]),
        )
        self.stats.depth += 1
        if self._state == _WAITING:
            self._hold(diff)
        elif self._state == _JOINING and diff.last < self._last:
            self.stats.stale += 1
        elif self._follows(diff):
            if diff.exch_ns < self._diff_exch_ns:
                self.stats.time_back += 1
                raise _Unusable(
                    f"exchange time of the depth chain goes back by "
                    f"{(self._diff_exch_ns - diff.exch_ns) // _MS} ms; {_RESYNC}"
                )
            self._apply(diff, local_ns, out)
            out.end_batch()
        elif self._resync and self._state == _SYNCED and diff.last <= self._last:
            self.stats.stale += 1  # a repetition
        else:
            self._on_break(diff, local_ns, out)

    def _follows(self, diff: _Diff) -> bool:
        if self._state == _SYNCED:
            return diff.previous == self._last
        return diff.previous <= self._last <= diff.last

    def _apply(self, diff: _Diff, local_ns: int, out: EventBuffer) -> None:
        exch_ns = max(diff.exch_ns, self._last_exch_ns)
        if diff.bids.px:
            out.put(DEPTH | BUY | _BOTH, exch_ns, local_ns, diff.last, *diff.bids)
        if diff.asks.px:
            out.put(DEPTH | SELL | _BOTH, exch_ns, local_ns, diff.last, *diff.asks)
        self._last = diff.last
        self._diff_exch_ns, self._last_exch_ns = diff.exch_ns, exch_ns
        self._state = _SYNCED

    def _on_break(self, diff: _Diff, local_ns: int, out: EventBuffer) -> None:
        if not self._resync:
            missing = (
                "the snapshot is older than the first diff after it"
                if self._state == _JOINING
                else "messages are missing"
            )
            raise GapError(
                f"update chain broken: the book is at update {self._last}, this message follows "
                f"update {diff.previous} ('pu'): {missing}; {_RESYNC}"
            )
        self.stats.gaps += 1
        self._state = _WAITING
        self._hold(diff)
        spare, self._spare = self._spare, None
        if spare is not None and spare.last > self._last:
            self._sync(spare, local_ns, out)

    def _hold(self, diff: _Diff) -> None:
        self._held.append(diff)
        self._drop(_size(diff))
        if len(self._held) > _HELD_MAX:
            self._held.popleft()

    def _drop(self, events: int) -> None:
        if self._had_snapshot:
            self.stats.dropped_messages += 1
            self.stats.dropped_events += events
        else:
            self.stats.before_snapshot += 1

    def _undrop(self, diff: _Diff) -> None:
        if self._had_snapshot:
            self.stats.dropped_messages -= 1
            self.stats.dropped_events -= _size(diff)
        else:
            self.stats.before_snapshot -= 1

    def _on_snapshot(self, data: dict[str, Any], local_ns: int, out: EventBuffer) -> None:
        symbol = data.get("symbol")
        if symbol is not None:
            if not self._is_ours(symbol, "pair" in data):
                return
        elif self.stats.other_symbol and not self.venue:
            raise DataError(
                "a snapshot that names no symbol, after messages of other symbols and none of "
                f"{self.symbol}: choose the symbol of the capture with --symbol, or give the "
                "snapshot as a file of its own (--snapshot)"
            )
        elif self.stats.other_symbol:
            raise DataError(
                "a snapshot that names no symbol in a capture of several symbols: "
                "give the snapshot of the symbol as a file of its own (--snapshot)"
            )
        if "T" not in data:
            raise DataError("snapshot without 'T': spot captures are not supported")
        snapshot = _Snapshot(
            _id(data, "lastUpdateId"), _time(data), _side(data["bids"]), _side(data["asks"])
        )
        self.stats.snapshot += 1
        self._nameless_snapshot = symbol is None
        if self._state == _SYNCED:
            self._spare = snapshot
        elif self._state == _WAITING or snapshot.last > self._last:
            self._sync(snapshot, local_ns, out)

    def _sync(self, snapshot: _Snapshot, local_ns: int, out: EventBuffer) -> None:
        """Emit the snapshot and the held diffs after it, if they connect."""
        fresh = [diff for diff in self._held if diff.last >= snapshot.last]
        chain = snapshot.last
        for i, diff in enumerate(fresh):
            if not (diff.previous <= chain if i == 0 else diff.previous == chain):
                self._on_useless(snapshot, diff)
                return
            chain = diff.last
        for diff in fresh:
            self._undrop(diff)
        self._had_snapshot = True
        self._state = _JOINING
        self._last, self._diff_exch_ns = snapshot.last, 0
        self._last_exch_ns = max(snapshot.exch_ns, self._last_exch_ns)
        out.put(CLEAR | _BOTH, self._last_exch_ns, local_ns, snapshot.last, (0.0,), (0.0,))
        for flag, side in ((BUY, snapshot.bids), (SELL, snapshot.asks)):
            out.put(SNAPSHOT | flag | _BOTH, self._last_exch_ns, local_ns, snapshot.last, *side)
        for diff in fresh:
            self._apply(diff, local_ns, out)
        out.end_batch()
        self._held.clear()

    def _on_useless(self, snapshot: _Snapshot, diff: _Diff) -> None:
        """A snapshot does not connect to the held diffs: `diff` is where it fails."""
        if not self._resync:
            raise GapError(
                f"the snapshot (update {snapshot.last}) does not connect: a diff after it follows "
                f"update {diff.previous} ('pu'): messages are missing; {_RESYNC}"
            )
        self.stats.gaps += 1
        while self._held[0] is not diff:  # no later snapshot can need those before the break
            self._held.popleft()


def _side(levels: list[tuple[str, str]]) -> _Side:
    px: list[float] = []
    qty: list[float] = []
    for level in levels:
        p, q = float(level[0]), float(level[1])
        if not (0.0 < p < 1e15 and 0.0 <= q < 1e18):
            raise ValueError(f"price {level[0]!r}, quantity {level[1]!r}")
        px.append(p)
        qty.append(q)
    return _Side(px, qty)


def _time(data: dict[str, Any]) -> int:
    value = data["T"]
    if type(value) is not int or not 0 < value < 9_000_000_000_000:
        raise ValueError(f"'T': expected milliseconds, got {value!r}")
    return value * _MS


def _id(data: dict[str, Any], name: str, least: int = 0) -> int:
    value = data[name]
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError(f"{name!r}: expected an update id, got {value!r}")
    return value


def _size(diff: _Diff) -> int:
    return len(diff.bids.px) + len(diff.asks.px)
