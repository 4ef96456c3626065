"""The paper gateway: answers our orders at once from our own book and the public trades.

Model: no latency. A taking order fills against the displayed levels, best first, at their prices. A
resting order joins the end of its level's queue; trades at its price take the queue before it, and
the displayed quantity bounds what is before it; a trade or an opposite quote beyond its price fills
it.

Known limits: our orders leave no trace in the book (no impact), and several of our orders at one
price each see the whole trade. For queue models, latency and cancels that race fills there is
`backtest`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.by_ref import Pinned
from tickrt.compile.jit import CFunction, c_function
from tickrt.execution.gateways import kernels, paper_kernels
from tickrt.execution.gateways.gateway import CAPACITY, GatewayContext
from tickrt.memory.records import INTENT_DTYPE, REPORT_DTYPE
from tickrt.memory.ring import Ring

__all__ = ["PaperGateway"]


@cache
def _functions() -> tuple[CFunction, CFunction]:
    return c_function(kernels.nothing_2, 2), c_function(paper_kernels.paper_on_batch, 4)


class PaperGateway:
    """The paper gateway of one loop, in the loop's own thread.

    Args:
        context: the loop's book and feed, and what its strategies trade.
    """

    name = "paper"

    def __init__(self, context: GatewayContext) -> None:
        self.orders = Ring.local(CAPACITY, INTENT_DTYPE)
        self.reports = Ring.local(CAPACITY, REPORT_DTYPE)
        self.state = paper_kernels.new_state(
            context.book,
            context.feed,
            self.orders.view,
            self.reports.view,
            context.symbols,
            [context.markets[s].lot_size for s in context.symbols],
        )
        self._pinned = Pinned(self.state)

    def handle(self) -> NDArray[np.int64]:
        """int64[4] in the order of `codes.GATEWAY_*`."""
        nothing, on_batch = (function.address for function in _functions())
        return np.array([nothing, nothing, on_batch, self._pinned.address], np.int64)

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"gateway": self.name}

    def error(self) -> str:
        """What went wrong, where something did."""
        return "the report queue was full" if self.state.code[0] < 0 else ""

    def close(self) -> None:
        """Release its state."""
        self._pinned.close()
