"""A desk whose orders go through a gateway's door, without a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.desk import LINEAR, Desk, desk, intent
from tickrt.compile.codes import BATCH_END, EXCH, FILL, GATEWAY_CTX, GATEWAY_ON_BATCH, LOCAL, TRADE
from tickrt.compile.intrinsics import call4
from tickrt.compile.jit import kernel
from tickrt.execution.gateways.gateway import GatewayContext
from tickrt.execution.gateways.paper import PaperGateway
from tickrt.execution.kernels import on_report
from tickrt.execution.state_machine import OrderEvent, OrderState
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import array_view


@kernel
def on_batch(handle, s, first, end):
    """Call a gateway's `on_batch` as the loop does."""
    return call4(handle[GATEWAY_ON_BATCH], handle[GATEWAY_CTX], s, first, end)


class Door:
    """A desk at the paper gateway; the feed is one event long and rewritten for each batch."""

    def __init__(self) -> None:
        self.desk: Desk = desk()
        self.events = np.zeros(1, EVENT_DTYPE)
        view, self._owner = array_view(self.events)
        context = GatewayContext(self.desk.book, view, (0,), (LINEAR,))
        self.gateway = PaperGateway(context)
        self.reports: list[OrderEvent] = []

    def batch(self, ev: int = 0, px_tick: int = 0, qty: float = 0.0) -> list[tuple[int, int, int]]:
        """A batch of one event; (price, lots, maker) of the fills that it brings."""
        self.events["ev"] = ev | LOCAL | EXCH | BATCH_END
        self.events["px"] = px_tick / self.desk.book.inv_tick[0]
        self.events["qty"], self.events["local_ts"] = qty, self.desk.now
        assert on_batch(self.gateway.handle(), 0, 0, 1) == 0
        self.reports.clear()
        return [shown for report in self.gateway.reports.read() if (shown := self._apply(report))]

    def _apply(self, report: NDArray[np.void]) -> tuple[int, int, int] | None:
        made, event = self.desk, OrderEvent(int(report["event"]))
        self.reports.append(event)
        numbers = [int(report[n]) for n in ("px_tick", "qty_lots", "maker")]
        done = on_report(made.orders, made.st, 0, int(report["order_id"]), int(event), *numbers)
        assert done == 0
        assert int(report["ts_ns"]) == made.now
        filled = event in (OrderEvent.PARTIAL_FILL, FILL)
        return (numbers[0], numbers[1], numbers[2]) if filled else None

    def submit(self, **wanted: Any) -> list[tuple[int, int, int]]:
        """Send an order or a cancel; the fills that it meets at once."""
        order = intent(**wanted)
        assert self.desk.send(order) == [0]
        assert self.gateway.orders.publish(order) == 1
        return self.batch()

    def trade(self, px_tick: int, qty: float, side: int) -> list[tuple[int, int, int]]:
        """A public trade; `side` is the flag of the aggressor."""
        return self.batch(TRADE | side, px_tick, qty)

    def state(self, slot: int = 0) -> OrderState:
        """The state of the order in a slot of the loop's own table."""
        return OrderState(int(self.desk.orders.state[0, slot]))
