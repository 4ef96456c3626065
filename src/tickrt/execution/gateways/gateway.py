"""The one door: orders out, reports in, as two rings and a row of addresses.

The loop publishes each order and cancel that passed risk in `orders` (`INTENT_DTYPE`) and reads
whatever happens to an order from `reports` (`REPORT_DTYPE`); nothing else changes an order. A
gateway is what stands on the other side. `Gateway` as it is leaves both ends to another thread or
process: a venue of one's own takes orders with `take`, and answers with `acknowledge`, `fill`,
`cancelled`, `reject`, `expire`, `reject_cancel`. Gateways that work in the loop's own thread
(`paper`, `hftbacktest`) put compiled functions into the handle, a row of int64:

    submit(ctx, ts_ns)            orders were published: hand them over; of the book only the levels
                                  that the specs see are sure to be there
    read_reports(ctx, ts_ns)      publish what is known by `ts_ns` in `reports`
    on_batch(ctx, s, first, end)  events first … end − 1 of symbol s are in the book, and were
                                  decided on; where an answer comes later, a call with first = end
                                  follows its orders

Each returns an int64 `Code`; an address of 0 means that there is nothing to do. None may block.

Invariants: a report names an order that was published; a full `reports` ring is an error, never a
lost report. Known limit: one gateway per loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.compile.jit import CFunction, c_function
from tickrt.errors import ConfigError, EngineError
from tickrt.execution.gateways import kernels
from tickrt.execution.state_machine import OrderEvent
from tickrt.market.book import Book
from tickrt.market.instrument import Instrument
from tickrt.memory.records import INTENT_DTYPE, REPORT_DTYPE
from tickrt.memory.ring import FeedView, Ring

__all__ = ["CAPACITY", "Gateway", "GatewayContext", "GatewayLike", "GatewayMaker", "NullGateway"]

CAPACITY = 1 << 12  # of either ring


class GatewayLike(Protocol):
    """What a loop needs of a gateway."""

    name: str
    orders: Ring
    reports: Ring

    def handle(self) -> NDArray[np.int64]:
        """int64[4]: submit, read_reports, on_batch, ctx."""
        ...

    def describe(self) -> dict[str, Any]:
        """What to print about it."""
        ...

    def error(self) -> str:
        """The text of what made one of its functions fail, or an empty string."""
        ...

    def close(self) -> None:
        """Release it; the loop must have ended."""
        ...


@dataclass(frozen=True)
class GatewayContext:
    """What a gateway in the loop's own thread may look at.

    Attributes:
        book: the loop's books, read only; whole in `on_batch`.
        feed: the loop's feed, read only: the events of a batch.
        symbols: the symbol index of each strategy.
        markets: the instrument of each symbol index.
    """

    book: Book
    feed: FeedView
    symbols: tuple[int, ...]
    markets: tuple[Instrument, ...]


GatewayMaker = Callable[[GatewayContext], GatewayLike]


@cache
def _discard() -> CFunction:
    return c_function(kernels.discard, 2)


class Gateway:
    """A venue of one's own: another thread or process works at the other end of the rings.

    Make one with `create` (the loop's side) and, in another process, `attach`; in a thread of the
    same process the same object serves both sides.

        gateway = Gateway.create("desk")             # the session's process
        with Session(config, gateway=gateway) as session:
            session.run()

        gateway = Gateway.attach("desk")             # the venue's process
        while not gateway.closed:
            for order in gateway.take():
                gateway.acknowledge(order)
    """

    name = "queue"

    def __init__(self, orders: Ring, reports: Ring) -> None:
        self.orders, self.reports = orders, reports

    @classmethod
    def create(cls, name: str | None = None, capacity: int = CAPACITY) -> Gateway:
        """Both rings, in shared memory as ``NAME.orders`` and ``NAME.reports``; local without one.

        Raises:
            ConfigError: the name is taken, or `capacity` is no power of two.
        """
        if name is None:
            orders = Ring.local(capacity, INTENT_DTYPE)
            return cls(orders, Ring.local(capacity, REPORT_DTYPE))
        orders = Ring.create(f"{name}.orders", capacity, INTENT_DTYPE)
        try:
            return cls(orders, Ring.create(f"{name}.reports", capacity, REPORT_DTYPE))
        except ConfigError:
            orders.unlink()
            raise

    @classmethod
    def attach(cls, name: str) -> Gateway:
        """The rings that another process created.

        Raises:
            ConfigError: there are none of that name.
        """
        return cls(
            Ring.attach(f"{name}.orders", INTENT_DTYPE),
            Ring.attach(f"{name}.reports", REPORT_DTYPE),
        )

    def handle(self) -> NDArray[np.int64]:
        """int64[4] in the order of `codes.GATEWAY_*`: nothing to call, the rings are all."""
        return np.zeros(codes.GATEWAY_COLUMNS, np.int64)

    def describe(self) -> dict[str, Any]:
        """Its name and its rings."""
        return {"gateway": self.name, "orders": self.orders.name, "reports": self.reports.name}

    def error(self) -> str:
        """Its functions cannot fail."""
        return ""

    @property
    def closed(self) -> bool:
        """Whether the session has ended and every order was taken."""
        return self.orders.closed and self.orders.consumed == self.orders.published

    def close(self) -> None:
        """Tell the other side that no order will come any more; whoever created it unlinks."""
        self.orders.close()
        self.orders.unlink()
        self.reports.unlink()

    def take(self, limit: int = 256) -> NDArray[np.void]:
        """The oldest orders and cancels that were not taken yet: `INTENT_DTYPE`[≤ limit].

        `kind` is `codes.NEW` or `codes.CANCEL` (of the order `order_id`); `px_tick` in ticks,
        `qty_lots` in lots, `side` +1 or −1, `tif` `codes.GTC`, `GTX` or `IOC`.
        """
        return self.orders.read(limit)

    def acknowledge(self, order: NDArray[np.void] | np.void, ts_ns: int = 0) -> None:
        """The venue has the order."""
        self.report(order, OrderEvent.ACK, ts_ns=ts_ns)

    def fill(
        self,
        order: NDArray[np.void] | np.void,
        px_tick: int,
        qty_lots: int,
        *,
        maker: bool,
        ts_ns: int = 0,
    ) -> None:
        """An execution of `qty_lots` at `px_tick`; `maker` where the order was resting."""
        self.report(
            order,
            OrderEvent.PARTIAL_FILL,
            px_tick=px_tick,
            qty_lots=qty_lots,
            maker=maker,
            ts_ns=ts_ns,
        )

    def cancelled(self, order: NDArray[np.void] | np.void, ts_ns: int = 0) -> None:
        """The order is gone, asked for or not."""
        self.report(order, OrderEvent.CANCEL_ACK, ts_ns=ts_ns)

    def reject_cancel(self, order: NDArray[np.void] | np.void, ts_ns: int = 0) -> None:
        """The cancel was refused; the order stands."""
        self.report(order, OrderEvent.CANCEL_REJECT, ts_ns=ts_ns)

    def reject(self, order: NDArray[np.void] | np.void, ts_ns: int = 0) -> None:
        """The order was refused."""
        self.report(order, OrderEvent.REJECT, ts_ns=ts_ns)

    def expire(self, order: NDArray[np.void] | np.void, ts_ns: int = 0) -> None:
        """The rest of the order has expired."""
        self.report(order, OrderEvent.EXPIRE, ts_ns=ts_ns)

    def report(
        self,
        order: NDArray[np.void] | np.void,
        event: OrderEvent,
        *,
        px_tick: int = 0,
        qty_lots: int = 0,
        maker: bool = False,
        ts_ns: int = 0,
    ) -> None:
        """Publish a report about an order that `take` gave.

        Args:
            order: the order, or the cancel of it.
            event: what happened; `PARTIAL_FILL` for every execution: whether it was the last
                follows from the lots.
            ts_ns: when, local time; 0: when the loop reads it.

        Raises:
            EngineError: the ring is full: the loop does not read.
        """
        record = np.zeros(1, REPORT_DTYPE)
        for name in ("order_id", "strategy", "symbol"):
            record[name] = order[name]
        record["event"], record["ts_ns"] = int(event), ts_ns
        record["px_tick"], record["qty_lots"], record["maker"] = px_tick, qty_lots, maker
        if self.reports.publish(record) != 1:
            raise EngineError(
                f"gateway {self.reports.name}: the report queue is full: is the session running?"
            )


class NullGateway(Gateway):
    """Takes orders and never answers. For tests, and to measure all the rest."""

    name = "null"

    def __init__(self) -> None:
        super().__init__(Ring.local(CAPACITY, INTENT_DTYPE), Ring.local(CAPACITY, REPORT_DTYPE))
        view = self.orders.view
        self._ctx = np.array([view.published, view.consumed], np.int64)

    def handle(self) -> NDArray[np.int64]:
        """int64[4] in the order of `codes.GATEWAY_*`."""
        row = np.zeros(codes.GATEWAY_COLUMNS, np.int64)
        row[codes.GATEWAY_SUBMIT] = _discard().address
        row[codes.GATEWAY_CTX] = self._ctx.ctypes.data
        return row
