"""What a loop wrote down, as Arrow tables that pandas and polars read without a copy.

Entry point: `Tables(records, slots, markets)`; a session offers its own as `session.tables`. Prices
and quantities are in the instrument's units, times are UTC with nanoseconds, `side` is +1 for buy
and −1 for sell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import Code
from tickrt.execution.state_machine import TABLE, OrderEvent, OrderState
from tickrt.market.instrument import Instrument
from tickrt.memory.records import fill_mid2
from tickrt.risk.limits import RiskReason
from tickrt.runtime.assembly import StrategySlot
from tickrt.runtime.report_types import LatencySummary
from tickrt.strategy.state import Mode

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Tables"]

Columns = dict[str, Any]
_TIF = {codes.GTC: "gtc", codes.GTX: "gtx", codes.IOC: "ioc"}


class Tables:
    """The records of a finished run, table by table; each is made when it is first asked for.

    Args:
        records: gives all records of a kind (`codes.RECORD_*`).
        slots: the loop's strategies.
        markets: the instrument of each symbol index.
        latency: the report's `latency_us`.
        ticks_per_ns: of the CPU's clock.
    """

    def __init__(
        self,
        records: Callable[[int], NDArray[np.void]],
        slots: Sequence[StrategySlot],
        markets: Sequence[Instrument],
        latency: dict[str, LatencySummary],
        ticks_per_ns: float,
    ) -> None:
        self._records, self._latency, self._rate = records, latency, ticks_per_ns
        self._strategies = np.array([slot.name for slot in slots])
        self._symbols = np.array([market.symbol for market in markets])
        self._ticks = np.array([market.tick_size for market in markets])
        self._lots = np.array([market.lot_size for market in markets])

    def _common(self, records: NDArray[np.void]) -> Columns:
        """When, which symbol, which strategy."""
        return {
            "time": records["ts_ns"].astype("datetime64[ns]"),
            "symbol": self._symbols[records["symbol"]],
            "strategy": self._strategies[records["strategy"]],
        }

    def _price(self, records: NDArray[np.void], ticks: NDArray[Any]) -> NDArray[np.float64]:
        prices: NDArray[np.float64] = ticks * self._ticks[records["symbol"]]
        return prices

    def _mid(self, records: NDArray[np.void], mid2: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mid price; NaN while a side of the book was missing."""
        return np.where(mid2 == 0, np.nan, self._price(records, 0.5 * mid2))

    @cached_property
    def fills(self) -> pa.Table:
        """An execution a row: time, symbol, strategy, order_id, side, px, qty, maker, fee (account
        currency), position (quantity held after it), mid (NaN without one)."""
        fills = self._records(codes.RECORD_FILL)
        lots = self._lots[fills["symbol"]]
        return _table(
            {
                **self._common(fills),
                "order_id": fills["order_id"],
                "side": fills["side"],
                "px": self._price(fills, fills["px_tick"]),
                "qty": fills["qty_lots"] * lots,
                "maker": fills["maker"] != 0,
                "fee": fills["fee"],
                "position": fills["position"] * lots,
                "mid": self._mid(fills, fill_mid2(fills)),
            }
        )

    @cached_property
    def signals(self) -> pa.Table:
        """A decision a row: time, symbol, strategy, row (its number), p_down, p_flat, p_up, mid,
        position (quantity before it), equity (account currency), mode, result (of the engine),
        intents (how many it wanted)."""
        signals = self._records(codes.RECORD_SIGNAL)
        return _table(
            {
                **self._common(signals),
                "row": signals["seq"],
                "p_down": signals["p_down"],
                "p_flat": signals["p_flat"],
                "p_up": signals["p_up"],
                "mid": self._mid(signals, signals["mid2_tick"]),
                "position": signals["position"] * self._lots[signals["symbol"]],
                "equity": signals["equity"],
                "mode": _names(signals["mode"], {int(m): m.name.lower() for m in Mode}),
                "result": _names(signals["code"], {int(c): c.name.lower() for c in Code}),
                "intents": signals["intents"],
            }
        )

    @cached_property
    def orders(self) -> pa.Table:
        """A wanted order a row: time, symbol, strategy, row, order_id, side, px, qty, tif, signal,
        refused_by (the risk check, null where it passed), tick_to_order_us (null where it was not
        sent), filled (quantity), state at the end."""
        intents = self._records(codes.RECORD_INTENT)
        intents = intents[intents["kind"] == codes.NEW]
        lots = self._lots[intents["symbol"]]
        took = self._tick_to_order_us()
        filled, state = self._outcomes()
        ids = intents["order_id"].tolist()
        reasons: dict[int, str | None] = {int(r): r.name.lower() for r in RiskReason}
        reasons[codes.REASON_PASS] = None
        return _table(
            {
                **self._common(intents),
                "row": intents["seq"],
                "order_id": intents["order_id"],
                "side": intents["side"],
                "px": self._price(intents, intents["px_tick"]),
                "qty": intents["qty_lots"] * lots,
                "tif": _names(intents["tif"], _TIF),
                "signal": intents["signal"],
                "refused_by": _names(intents["reason"], reasons),
                "tick_to_order_us": [took.get(i) for i in ids],
                "filled": np.array([filled.get(i, 0) for i in ids], np.int64) * lots,
                "state": [state.get(i, "sent" if i in took else "not sent") for i in ids],
            }
        )

    def _tick_to_order_us(self) -> dict[int, float]:
        """Of each new order that went out."""
        sent = self._records(codes.RECORD_ORDER)
        sent = sent[sent["kind"] == codes.NEW]
        us = (sent["sent"] - sent["ready"]) / (self._rate * 1e3)
        return dict(zip(sent["order_id"].tolist(), us.tolist(), strict=True))

    def _outcomes(self) -> tuple[dict[int, int], dict[int, str]]:
        """Filled lots and the last state of each order that was reported on."""
        filled: dict[int, int] = {}
        state: dict[int, OrderState] = {}
        executions = (OrderEvent.PARTIAL_FILL, OrderEvent.FILL)
        intents = self._records(codes.RECORD_INTENT)
        ordered = dict(zip(intents["order_id"].tolist(), intents["qty_lots"].tolist(), strict=True))
        for report in self._records(codes.RECORD_REPORT):
            order, event = int(report["order_id"]), OrderEvent(int(report["event"]))
            if event in executions:
                filled[order] = filled.get(order, 0) + int(report["qty_lots"])
                whole = filled[order] >= ordered.get(order, 0)
                event = OrderEvent.FILL if whole else OrderEvent.PARTIAL_FILL
            if event == OrderEvent.CANCEL_REJECT:
                continue  # the order stands, or had ended before
            after = int(TABLE[state.get(order, OrderState.PENDING_NEW), event])
            if after >= 0:
                state[order] = OrderState(after)
        return filled, {order: s.name.lower() for order, s in state.items()}

    @cached_property
    def latency(self) -> pa.Table:
        """A stage a row: stage, count, and mean, min, p50, p90, p99, p999, max in µs."""
        names = ("count", "mean", "min", "p50", "p90", "p99", "p999", "max")
        rows = list(self._latency.values())
        return _table(
            {
                "stage": list(self._latency),
                **{name: [getattr(row, name) for row in rows] for name in names},
            }
        )


def _names(numbers: NDArray[Any], words: dict[int, str | None] | dict[int, str]) -> list[Any]:
    return [words.get(int(number)) for number in numbers]


def _table(columns: Columns) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.array(_plain(values)) for name, values in columns.items()})


def _plain(values: Any) -> Any:
    """What Arrow takes: text from NumPy as objects, numbers contiguous."""
    if not isinstance(values, np.ndarray):
        return values
    return values.astype(object) if values.dtype.kind == "U" else np.ascontiguousarray(values)
