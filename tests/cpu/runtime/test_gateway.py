"""The door of a loop: a venue of one's own in another thread, and what it may do wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.sessions import BTC, config, market, market_file, settings
from tickrt.compile import codes
from tickrt.config import NullSettings
from tickrt.errors import ConfigError, EngineError
from tickrt.execution.gateways.gateway import Gateway, NullGateway
from tickrt.execution.state_machine import OrderEvent
from tickrt.memory.records import REPORT_DTYPE
from tickrt.memory.ring import Ring
from tickrt.report.summary import assumed
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams


class Venue:
    """Answers every order from a thread of its own, as `answer` does."""

    def __init__(self, gateway: Gateway, answer: Callable[[Gateway, np.void], None]) -> None:
        self.gateway, self.answer, self.seen = gateway, answer, 0
        self.thread = threading.Thread(target=self._work)
        self.stop = threading.Event()

    def _work(self) -> None:
        while not self.stop.is_set():
            for order in self.gateway.take():
                self.answer(self.gateway, order)
                self.seen += 1
            time.sleep(0.0005)

    def settled(self) -> bool:
        """Every order was answered, and every answer read."""
        orders, reports = self.gateway.orders, self.gateway.reports
        return self.seen == orders.published and reports.consumed == reports.published

    def __enter__(self) -> Venue:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def fill_whole(gateway: Gateway, order: np.void) -> None:
    gateway.acknowledge(order)
    gateway.fill(order, int(order["px_tick"]), int(order["qty_lots"]), maker=False)


def played(folder: Path, answer: Callable[[Gateway, np.void], None]) -> tuple[Session, Venue]:
    """A session on a live ring whose orders a thread answers; the feed waits for the answers."""
    gateway, ring = Gateway.create(), Ring.local(1 << 12)
    made = config(folder, market_file(folder / "m.npz", 40))
    session = Session(made, feed=(ring.view, [BTC]), gateway=gateway)
    over = threading.Event()
    with Venue(gateway, answer) as venue:

        def publish() -> None:
            for batch in np.split(market(40), np.flatnonzero(batch_ends(market(40)))[:-1] + 1):
                ring.publish(batch)
                while not (ring.consumed == ring.published and venue.settled()):
                    if over.wait(0.0002):
                        return
            ring.close()

        feeder = threading.Thread(target=publish)
        feeder.start()
        try:
            session.run()
        except EngineError:
            session.close()
            raise
        finally:
            over.set()
            feeder.join()
    return session, venue


def batch_ends(events: np.ndarray) -> np.ndarray:
    return (events["ev"] & np.uint64(codes.BATCH_END)) != 0


def test_what_a_venue_reports_reaches_order_account_and_records(tmp_path: Path) -> None:
    session, venue = played(tmp_path, fill_whole)
    with session:
        fills, reports = session.fills(), session.records(codes.RECORD_REPORT)
        st = session.assembly.loop.strategies
        assert venue.seen > 0
        assert len(fills) == st.fills[0] > 0
        assert st.position[0] == fills["position"][-1] == (fills["side"] * fills["qty_lots"]).sum()
        assert set(reports["event"]) == {int(OrderEvent.ACK), int(OrderEvent.PARTIAL_FILL)}
        assert np.all(reports["ts_ns"] > 0)  # the loop's time, where the venue gives none


def test_nobody_answers_the_null_gateway(tmp_path: Path) -> None:
    maker = settings(tmp_path, policy=MakerParams())
    data = market_file(tmp_path / "m.npz", 400)
    with Session(config(tmp_path, data, maker, gateway=NullSettings())) as session:
        report = session.run()
        assert isinstance(session.assembly.gateway, NullGateway)
        orders = session.assembly.gateway.orders
        assert orders.published == orders.consumed == report.orders + report.cancels
        assert report.orders > 0
        assert report.fills == len(session.records(codes.RECORD_REPORT)) == 0
    assert any("nobody answers" in sentence for sentence in assumed(report))
    assert not any("paper" in sentence for sentence in assumed(report))


def test_a_refused_order_frees_the_taker(tmp_path: Path) -> None:
    session, venue = played(tmp_path, lambda gateway, order: gateway.reject(order))
    with session:
        assert venue.seen > 1  # the first refusal did not block the second order
        assert session.assembly.loop.strategies.position[0] == 0
        assert set(session.tables.orders["state"].to_pylist()) == {"rejected"}


def test_a_report_about_an_order_that_never_was_stops_the_loop(tmp_path: Path) -> None:
    def wrong(gateway: Gateway, order: np.void) -> None:
        forged = order.copy()
        forged["order_id"] += 999
        gateway.acknowledge(forged)

    with pytest.raises(EngineError, match="BAD_TRANSITION"):
        played(tmp_path, wrong)


def test_both_sides_meet_in_shared_memory() -> None:
    ours = Gateway.create("tickrt-test-door", 8)
    try:
        theirs = Gateway.attach("tickrt-test-door")
        order = np.zeros(1, ours.orders.dtype)
        order["order_id"] = 7
        assert ours.orders.publish(order) == 1
        (taken,) = theirs.take()
        assert taken["order_id"] == 7
        theirs.fill(taken, 100, 2, maker=True, ts_ns=5)
        (report,) = ours.reports.read()
        assert (report["order_id"], report["px_tick"], report["qty_lots"]) == (7, 100, 2)
        assert not theirs.closed
        with pytest.raises(ConfigError, match="exists already"):
            Gateway.create("tickrt-test-door")
        with pytest.raises(ConfigError, match="ring of other records"):
            Ring.attach("tickrt-test-door.orders", REPORT_DTYPE)
        for _ in range(8):
            theirs.acknowledge(taken)
        with pytest.raises(EngineError, match="report queue is full"):
            theirs.acknowledge(taken)
    finally:
        ours.close()
    assert theirs.closed
    with pytest.raises(ConfigError, match="does not exist"):
        Gateway.attach("tickrt-test-door")
