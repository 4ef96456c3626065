"""The book in two parts equals the book in one: the same rows, orders, account and errors, and the
same book after every batch. The undivided loop is the same one with a depth that no book has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.sessions import BTC
from helpers.split_market import Market
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.run import Backtest
from tickrt.compile import codes
from tickrt.compile.codes import BATCH_END
from tickrt.config import SessionConfig, StrategySettings
from tickrt.market import kernels
from tickrt.market.book import Book, new_book
from tickrt.market.deferred import Deferred, new_deferred
from tickrt.market.deferred_kernels import apply_deferred, apply_other, settle, take_levels
from tickrt.market.event_file import save_events
from tickrt.memory.records import RECORD_DTYPE, RECORD_NAMES, of_kind
from tickrt.memory.ring import array_view
from tickrt.risk.limits import RiskLimits
from tickrt.runtime.loop.loop_kernels import Pace, run
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams, TakerParams
from tickrt.strategy.state import Mode

LADDER, FAR, DEPTH = 4096, 64, 12
UNDIVIDED = 1 << 40  # levels a side that no book has

sides = st.sampled_from([0, 1])
quantities = st.sampled_from([0.0, 0.0, 1.0, 2.0, 7.5, -0.0])
near, deep = st.integers(0, 15), st.integers(15, 120)
changes = st.one_of(
    *[st.tuples(st.just("level"), sides, where, quantities) for where in (near, deep, deep)],
    st.tuples(st.just("sweep"), sides, st.integers(1, 45)),
    st.tuples(st.just("run"), sides, st.integers(10, 100), st.integers(5, 60), quantities),
    st.tuples(st.just("trade"), sides, st.just(1)),
)
rare = st.one_of(
    st.tuples(st.just("level"), sides, st.integers(-3, -1), quantities),
    st.tuples(st.just("level"), sides, st.integers(-3000, -900), quantities),
    st.tuples(st.just("level"), sides, st.integers(3000, 9000), quantities),
    st.tuples(st.just("clear"), st.sampled_from([0, 1, 2]), st.integers(0, 60)),
    st.tuples(st.just("leap"), sides, st.integers(900, 6000)),
    st.tuples(st.just("snapshot"), st.integers(2, 90)),
    st.tuples(st.just("bad"), sides, st.sampled_from([np.nan, np.inf, -1.0])),
)
ops = st.one_of(changes, changes, changes, changes, rare)
batches = st.lists(st.lists(ops, min_size=1, max_size=12), min_size=1, max_size=8)


def same(a: NamedTuple, b: NamedTuple, *without: str) -> None:
    for name, one, other in zip(a._fields, a, b, strict=True):
        if name not in without:
            np.testing.assert_array_equal(one, other, err_msg=name)


def tops(book: Book, n: int) -> list[Any]:
    found: list[Any] = []
    for s in range(len(book.inv_tick)):
        found.append((kernels.best(book, s), kernels.check(book, s)))
        for side in (0, 1):
            ticks, qtys = np.zeros(n, np.int64), np.zeros(n)
            count = kernels.top_levels(book, s, side, n, ticks, qtys)
            found += [ticks[:count].tolist(), qtys[:count].tolist()]
    return found


def play(book: Book, deferred: Deferred, events: np.ndarray, q: int) -> tuple[int, int]:
    """From event `q` to the end of its batch → (next q, Code), as `take_batch` does it."""
    while True:
        first, code, e = q, 0, events[q]
        s = int(e["ival"])
        q = take_levels(book, deferred, s, events, -1, q, len(events))
        if q == first:
            ev, ts = int(e["ev"]), int(e["local_ts"])
            code = apply_other(book, deferred, s, ev, e["px"], e["qty"], ts)
            q += 1
        if code < 0 or int(events[q - 1]["ev"]) & BATCH_END:
            return q, code


def compare(events: np.ndarray, capacity: int = 4096, symbols: int = 1) -> int:
    """Play events both ways: what a row sees when a batch is complete, and every array once it is
    settled; -> levels that were put off and still were when their batch was complete."""
    whole, parts = (new_book([0.1] * symbols, LADDER, FAR) for _ in range(2))
    deferred = new_deferred([DEPTH] * symbols, capacity)
    q = put_off = 0
    while q < len(events):
        first = q
        q, code = play(parts, deferred, events, q)
        for i in range(first, q):
            e = events[i]
            s, ev, ts = int(e["ival"]), int(e["ev"]), int(e["local_ts"])
            expected = kernels.apply_event(whole, s, ev, e["px"], e["qty"], ts)
            assert expected == (code if i == q - 1 else 0)
        assert tops(parts, DEPTH) == tops(whole, DEPTH)
        put_off += int(deferred.count[0])
        if code == 0:
            settle(parts, deferred, int(events[q - 1]["ival"]))
        apply_deferred(parts, deferred)
        same(parts, whole)
    return put_off


@settings(max_examples=150, deadline=None)
@given(st.integers(5, 90), st.sampled_from([3, 4096]), batches)
def test_any_messages(levels: int, capacity: int, script: list) -> None:
    compare(Market(levels).play(script), capacity)


@pytest.mark.parametrize("side", [0, 1])
def test_near_levels_that_become_too_few(side: int) -> None:
    for gone in range(10, 32):
        changes = [("run", side, 36, 14, 5.0), ("sweep", side, gone)]
        compare(Market(60).play([changes, changes]))


@pytest.mark.parametrize("side", [0, 1])
def test_more_than_there_is_room_for(side: int) -> None:
    for gone in range(20, 40):
        changes = [("run", side, 90, 40, 1.0), ("sweep", side, gone)]
        compare(Market(60).play([changes]), capacity=3)


@pytest.mark.parametrize("side", [0, 1])
def test_a_best_above_the_ladder(side: int) -> None:
    away = [("level", 1 - side, 45, 0.0), ("run", side, 40, 30, 2.0)]
    for beyond in (-2000, -1100):
        compare(Market(60).play([[*away, ("level", side, beyond, 1.0)]]))
    assert compare(Market(60).play([away])) == 31


@pytest.mark.parametrize("side", [0, 1])
def test_a_best_that_sinks_into_the_lowest_quarter(side: int) -> None:
    for low in range(2020, 2110, 6):
        sink = [("run", side, low, 60, 1.0), ("level", side, 3500, 1.0), ("sweep", side, 60)]
        compare(Market(60).play([sink, [("run", side, 45, 10, 3.0), ("sweep", side, 14)]]))


def test_two_symbols_in_one_message() -> None:
    """Their levels alternate."""
    runs = [("run", 0, 0, 60, 2.0), ("run", 1, 20, 60, 0.0)]
    one, two = (Market(80, symbol=s, mid=mid).play([runs]) for s, mid in ((0, 50_000), (1, 50_030)))
    message = np.stack([one[-120:], two[-120:]], axis=1).reshape(-1)
    message["ev"][:-1] &= ~np.uint64(BATCH_END)
    assert compare(np.concatenate([one[:-120], two[:-120], message]), symbols=2) > 80


def test_most_of_a_long_message_is_put_off() -> None:
    book, deferred = new_book([0.1], LADDER, FAR), new_deferred([DEPTH])
    events = Market(300).play([[("run", 0, 100, 100, 2.0), ("run", 1, 100, 100, 3.0)]])
    q, _ = play(book, deferred, events, 0)
    settle(book, deferred, 0)
    assert deferred.count[0] == 0
    play(book, deferred, events, q)
    assert deferred.count[0] == 200


SPEC = """
format = 1
name = "{name}"
window = 3
row_on = "{row_on}"

[[columns]]
kind = "levels"
depth = {depth}

[[columns]]
kind = "volume"

[[columns]]
kind = "order_flow"
depth = 3

[[columns]]
kind = "returns"
lags = [1, 2]

[[columns]]
kind = "user"
file = "column.py"
function = "lean"
depth = {user_depth}
"""
COLUMN = """
from numba import njit


@njit
def lean(bid_ticks, bid_qtys, ask_ticks, ask_qtys, state, params):
    state[0] += bid_qtys.sum() - 0.5 * ask_qtys.sum() + len(bid_ticks)
    return state[0]
"""
CLOCKS = [i for name, i in vars(codes).items() if name in {
    "COUNT_STARTED", "COUNT_ADVANCED", "COUNT_WAITED", "COUNT_STAGE_ENDED",
}]  # fmt: skip
TIMED = {codes.RECORD_ORDER: ("ready", "sent"), codes.RECORD_CLOCK: ("clock",)}
MANY = 1_000_000


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[StrategySettings, ...]:
    """Two symbols; streams of 2, 25 and 12 levels; takers and makers on the rule-based signal."""
    folder: Path = tmp_path_factory.mktemp("split")
    (folder / "column.py").write_text(COLUMN, encoding="utf-8")
    risk = RiskLimits(max_order_notional=1e15, max_position_lots=MANY, price_collar=0.5)
    taker = TakerParams(enter_threshold=0.2, cooldown_ns=0, max_spread_ticks=MANY, qty_lots=3)
    made = []
    for name, symbol, depth, user_depth, row_on, policy in (
        ("a", "BTCUSDT", 2, 1, "batch", taker),
        ("b", "BTCUSDT", 5, 25, "depth", MakerParams(half_spread_ticks=65.0)),
        ("c", "OTHER", 12, 12, "batch", MakerParams()),
    ):
        path = folder / f"{name}.toml"
        path.write_text(
            SPEC.format(name=name, depth=depth, user_depth=user_depth, row_on=row_on),
            encoding="utf-8",
        )
        made.append(
            StrategySettings(name=name, symbol=symbol, spec=str(path), policy=policy, risk=risk)
        )
    return tuple(made)


def new_session(desk: tuple[StrategySettings, ...], events: np.ndarray, divided: bool) -> Session:
    other = BTC.from_dict({**BTC.to_dict(), "symbol": "OTHER"})
    config = SessionConfig(data=(Path("none"),), strategies=desk, backend="null")
    view, owner = array_view(events)
    session = Session(config, feed=(view, [BTC, other]))
    session.owner = owner  # type: ignore[attr-defined]
    loop = session.assembly.loop
    loop.strategies.mode[:] = Mode.FALLBACK
    if not divided:
        loop.deferred.depth[:] = UNDIVIDED
    return session


def written(loop: Any) -> list[Any]:
    """The records of a loop by kind, without clocks."""
    found = []
    records = loop.records.rows[: loop.records.state[0]].view(RECORD_DTYPE)
    for kind in RECORD_NAMES:
        those = of_kind(records, kind).copy()
        for name in TIMED.get(kind, ()):
            those[name] = 0
        found.append(those.tobytes())
    return found


def compare_loops(desk: tuple[StrategySettings, ...], events: np.ndarray) -> Any:
    """Play events both ways, with the paper gateway: all that a loop holds, batch by batch and in
    the middle of one; -> the gateway's state."""
    ends = np.flatnonzero(events["ev"] & np.uint64(BATCH_END)) + 1
    with new_session(desk, events, True) as one, new_session(desk, events, False) as two:
        loops = [one.assembly.loop, two.assembly.loop]
        gateways = [session.assembly.gateway.state for session in (one, two)]
        for cut in sorted({*ends.tolist(), *(ends // 2).tolist()}):
            view, owner = array_view(events[:cut])
            results = [run(view, loop, Pace(0, 0, 0, 0.0)) for loop in loops]
            del owner
            assert results[0] == results[1]
            np.testing.assert_array_equal(*(np.delete(loop.counters, CLOCKS) for loop in loops))
            same(loops[0].book, loops[1].book)
            same(loops[0].streams, loops[1].streams, "addresses", "ops")
            for part in ("strategies", "orders", "risk"):
                same(getattr(loops[0], part), getattr(loops[1], part))
            same(*gateways, "book", "feed", "orders", "reports")
            assert written(loops[0]) == written(loops[1])
            if results[0] < 0:
                break
        return gateways[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from([0, 0, 1]), batches), min_size=1, max_size=3))
def test_any_session(desk: tuple[StrategySettings, ...], script: list) -> None:
    markets = [Market(70), Market(40, symbol=1, mid=30_000)]
    events = np.concatenate([markets[s].play(part) for s, part in script])
    complete = (events["ev"][:-1] & np.uint64(BATCH_END)) != 0
    events["exch_ts"] = 1_000_000_000 + 1_000_000 * np.cumsum(np.r_[0, complete])
    events["local_ts"] = events["exch_ts"]
    compare_loops(desk, events)


def test_a_quote_deeper_than_any_row(desk: tuple[StrategySettings, ...]) -> None:
    """The queue before it is what the whole book shows when the batch is complete."""
    script = [[("level", 0, 0, float(2 + i))] for i in range(6)]
    for qty in (3.0, 2.0, 1.0):
        script.append([("run", side, 40, 50, qty) for side in (0, 1)])
    state = compare_loops(desk, Market(70).play(script))
    assert state.ahead[state.order_id > 0].tolist() == [1.0, 1.0]


def test_backtest(tmp_path: Path, desk: tuple[StrategySettings, ...]) -> None:
    """With hftbacktest as the venue."""
    rng = np.random.default_rng(5)
    script = []
    for _ in range(300):
        side, away = int(rng.integers(2)), int(rng.integers(10, 60))
        script.append([
            ("level", side, int(rng.integers(0, 6)), float(rng.integers(0, 4))),
            ("level", 1 - side, int(rng.integers(0, 6)), float(rng.integers(1, 4))),
            ("run", side, away, int(rng.integers(1, 60)), float(rng.integers(0, 4))),
            ("trade", side, 1),
        ])  # fmt: skip
    events = Market(70).play(script)
    data = save_events(tmp_path / "m.npz", events, {"instrument": BTC.to_dict()})
    results = []
    for divided in (True, False):
        config = SessionConfig(data=(data,), strategies=desk[:2], backend="null")
        with Backtest(config, latency=InferenceLatency.constant(20_000)) as made:
            made.assembly.loop.strategies.mode[:] = Mode.FALLBACK
            if not divided:
                made.assembly.loop.deferred.depth[:] = UNDIVIDED
            report = made.run()
            book = [array.tobytes() for array in made.assembly.loop.book]
            results.append((made.intents().tobytes(), made.fills().tobytes(), report.rows, book))
    assert results[0] == results[1]
    assert report.orders > 10
    assert report.fills > 2
