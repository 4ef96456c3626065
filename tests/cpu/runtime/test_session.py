"""The loop from feed to order: what it does, and what it does when something is wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from helpers.sessions import (
    BTC,
    T,
    config,
    from_memory,
    market,
    market_file,
    settings,
    tiny_model,
    tiny_spec,
)
from tickrt.compile.codes import BATCH_END, BUY, DEPTH, EXCH, LOCAL, SELL, TRADE
from tickrt.config import SessionConfig, parse_pace
from tickrt.errors import (
    BookError,
    Code,
    ConfigError,
    EngineError,
    FeatureMismatchError,
    ModelError,
)
from tickrt.execution.gateways.gateway import Gateway
from tickrt.feature.spec import load_spec
from tickrt.feature.streams import window
from tickrt.market.event_file import save_events
from tickrt.memory.ring import Ring
from tickrt.risk.limits import RiskLimits, halt, rearm
from tickrt.runtime.loop.loop_kernels import READ_AHEAD
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams, TakerParams
from tickrt.strategy.state import Mode


def test_every_batch_makes_a_row_and_full_windows_make_signals(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 300)
    with Session(config(tmp_path, data)) as session:
        report = session.run()
    assert report.batches == report.rows == 300
    assert report.signals == 300 - (T - 1)
    assert report.orders > 0
    assert report.fills > 0
    for stage in ("book", "features", "engine", "decision", "tick_to_order", "tick_to_decision"):
        times = report.latency_us[stage]
        assert 0 < times.p50 <= times.p99 <= times.p999 <= times.max
    assert report.latency_us["tick_to_order"].count == report.orders + report.cancels
    assert report.engine.backend == "native"
    assert len(report.engine.model_sha256) == 64


def test_signals_equal_onnxruntime_in_python(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 120)
    spec = tiny_spec(tmp_path, T)
    with Session(config(tmp_path, data, split=False, backend="onnxruntime")) as session:
        python = onnxruntime.InferenceSession(str(tmp_path / "tiny.onnx"))
        session.run()
        loop = session.assembly.loop
        last = session.signals()[-1]
        (expected,) = python.run(None, {"rows": window(loop.streams, 0)[None]})
    assert spec.window == T
    found = [last["p_down"], last["p_flat"], last["p_up"]]
    np.testing.assert_array_equal(np.array(found, np.float32), expected[0])


def test_no_signal_from_a_window_across_a_clear(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 60, clear_at=30)
    with Session(config(tmp_path, data)) as session:
        report = session.run()
        decisions = session.signals()
    assert report.signals == 60 - 2 * (T - 1)
    assert not set(range(31, 31 + T - 1)) & set(decisions["seq"].tolist())


def test_same_file_gives_same_orders_byte_for_byte(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 400)
    runs = []
    for _ in range(2):
        with Session(
            config(tmp_path, data, settings(tmp_path), settings(tmp_path, policy=MakerParams()))
        ) as s:
            s.run()
            runs.append(s.intents().tobytes())
    assert runs[0] == runs[1]
    assert len(runs[0]) > 64 * 10


def digest(folder: Path) -> str:
    """Digest of the intents and decisions of a session in `folder`."""
    strategies = (settings(folder), settings(folder, policy=MakerParams()))
    made = config(folder, folder / "m.npz", *strategies)
    with Session(made) as session:
        session.run()
        done = session.signals()
        return hashlib.sha256(session.intents().tobytes() + done.tobytes()).hexdigest()


def test_plain_python_gives_the_same_bytes(tmp_path: Path) -> None:
    market_file(tmp_path / "m.npz", 40)
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from test_session import digest\n"
        "print(digest(Path(sys.argv[1])))"
    )
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", code, str(tmp_path), str(here)]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == digest(tmp_path)


def test_nan_sends_the_strategy_to_its_fallback(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 200)
    spec = tiny_spec(tmp_path, T)
    bad = tiny_model(spec, tmp_path / "nan.onnx", nan=True)
    with Session(config(tmp_path, data, settings(tmp_path, model=str(bad)))) as session:
        report = session.run()
        intents = session.intents()
    assert report.signals == 0
    assert report.faults == report.fallback_decisions == 200 - (T - 1)
    assert report.modes == {"taker": "fallback"}
    assert len(intents)
    assert set(intents["mode"].tolist()) == {int(Mode.FALLBACK)}
    assert np.isfinite(intents["signal"]).all()


COLUMN = """
from numba import njit


@njit
def fails_sometimes(bid_ticks, bid_qtys, ask_ticks, ask_qtys, state, params):
    state[0] += 1.0
    return float("nan") if state[0] == params[0] else 0.0
"""


def test_a_column_that_is_not_finite_is_a_fault_and_starts_the_window_anew(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 100)
    (tmp_path / "column.py").write_text(COLUMN, encoding="utf-8")
    tiny_spec(tmp_path, T)
    text = (tmp_path / f"tiny{T}.toml").read_text(encoding="utf-8")
    text += '\n[[columns]]\nkind = "user"\nfile = "column.py"\n'
    text += 'function = "fails_sometimes"\nparams = [40.0]\n'
    path = tmp_path / "user.toml"
    path.write_text(text, encoding="utf-8")
    model = tiny_model(load_spec(path), tmp_path / "user.onnx")
    chosen = settings(tmp_path, model=str(model), spec=str(path))
    with Session(config(tmp_path, data, chosen, healthy_needed=5)) as session:
        report = session.run()
        done = session.signals()
    faults = done[done["code"] < 0]
    assert report.faults == len(faults) == 2  # the column's state starts anew with the stream
    assert set(faults["code"].tolist()) == {int(Code.COLUMN_NOT_FINITE)}
    assert set(faults["mode"].tolist()) == {int(Mode.FALLBACK)}
    assert report.rows == 98
    assert report.signals == 98 - 3 * (T - 1)
    assert report.modes == {"taker": "live"}


def test_it_returns_to_the_model_after_enough_healthy_results(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 100)
    with Session(config(tmp_path, data, healthy_needed=20)) as session:
        session.assembly.loop.strategies.mode[0] = Mode.FALLBACK
        report = session.run()
    assert report.fallback_decisions == 19
    assert report.modes == {"taker": "live"}


def test_late_result_is_a_fault(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 50)
    with Session(config(tmp_path, data, backend="null")) as session:
        table = session.assembly.loop.engines.table
        table[0, 0] = table[0, 2]  # submit does what advance does: nothing is ever stamped
        session.assembly.loop.engines.deadline[0] = 1000
        report = session.run()
    assert report.faults == 50 - (T - 1)
    assert "ENGINE_TIMEOUT" in " ".join(report.notes)


@pytest.mark.parametrize("split", [True, False])
def test_late_result_of_an_engine_on_the_loops_own_thread_is_a_fault(
    split: bool, tmp_path: Path
) -> None:
    data = market_file(tmp_path / "m.npz", 50)
    with Session(config(tmp_path, data, split=split, deadline_us=0.001)) as session:
        report = session.run()
    assert report.faults == 50 - (T - 1)
    assert report.modes == {"taker": "fallback"}


def test_shadow_decides_but_sends_nothing(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 200)
    with Session(config(tmp_path, data, settings(tmp_path, shadow=True))) as session:
        report = session.run()
        assert len(session.intents()) > 0
    assert report.orders == report.fills == 0


def test_halt_stops_new_orders_until_rearmed(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 200)
    with from_memory(config(tmp_path, data)) as session:
        halt(session.assembly.loop.risk, 0)
        report = session.run()
        assert report.orders == 0
        assert report.modes == {"taker": "halted"}
        assert "re-arms" in " ".join(report.notes)
        rearm(session.assembly.loop.risk, 0)
        session.assembly.loop.counters[:] = 0
        report = session.run()
        assert report.orders > 0


def test_shadow_stays_shadow_when_rearmed(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 100)
    with from_memory(config(tmp_path, data, settings(tmp_path, shadow=True))) as session:
        halt(session.assembly.loop.risk, 0)
        assert session.run().modes == {"taker": "halted"}
        rearm(session.assembly.loop.risk, 0)
        session.assembly.loop.counters[:] = 0
        report = session.run()
    assert report.modes == {"taker": "shadow"}
    assert report.orders == 0


def test_loss_halts_a_strategy_that_does_not_trade(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 100)
    quiet = settings(
        tmp_path, policy=TakerParams(enter_threshold=1.0), risk=RiskLimits(max_loss=1.0)
    )
    with Session(config(tmp_path, data, quiet)) as session:
        loop = session.assembly.loop
        loop.risk.base[0] = 10.0  # it was armed with 10 more than it has now
        report = session.run()
    assert report.intents == 0
    assert report.modes == {"taker": "halted"}


def test_strategies_share_streams_and_engines(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    market_file(first, 120)
    eth = BTC.from_dict({**BTC.to_dict(), "symbol": "OTHER"})
    market_file(second, 80, seed=9, instrument=eth)
    strategies = (
        settings(tmp_path, symbol="OTHER", name="c"),
        settings(tmp_path, name="a"),
        settings(tmp_path, name="b", policy=MakerParams()),
    )
    made = SessionConfig(data=(first, second), strategies=strategies)
    with Session(made) as session:
        report = session.run()
        loop, intents = session.assembly.loop, session.intents()
    assert len(loop.streams.symbol) == 2
    assert len(session.assembly.engines) == 2
    assert [slot.name for slot in session.assembly.slots] == ["a", "b", "c"]
    assert report.rows == 200
    assert report.signals == 200 - 2 * (T - 1)
    alone = config(tmp_path, first, settings(tmp_path, name="a"))
    with Session(alone) as session:
        session.run()
        expected = session.intents()
    mine = intents[intents["strategy"] == 0]
    assert mine.tobytes() == expected.tobytes()


def test_a_ring_gives_the_same_orders_as_the_array(tmp_path: Path) -> None:
    events = market(400)
    data = market_file(tmp_path / "m.npz", 400)
    with Session(config(tmp_path, data)) as session:
        session.run()
        expected = session.intents().tobytes()
    ring = Ring.create(None, 256)
    try:
        with Session(config(tmp_path, data), feed=(ring.view, [BTC])) as session:

            def produce() -> None:
                sent = 0
                while sent < len(events):
                    sent += ring.publish(events[sent:])
                ring.close()

            producer = threading.Thread(target=produce)
            producer.start()
            report = session.run()
            producer.join()
            assert session.intents().tobytes() == expected
        assert report.latency_us["queued"].max > 0
    finally:
        ring.unlink()


def test_paced_run_gives_the_same_orders_in_recorded_time(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 60)
    results = []
    for pace in ("max", "20x"):
        with Session(config(tmp_path, data, pace=parse_pace(pace))) as session:
            report = session.run()
            results.append(session.intents().tobytes())
    assert results[0] == results[1]
    assert report.wall_s >= 59 * 0.010 / 20
    assert report.pace == "20x"


def test_trades_of_a_batch_that_is_read_in_parts_reach_the_paper_gateway(tmp_path: Path) -> None:
    events = market(100)
    # One message: a sale far below every bid, then more changes of one level than are read at once.
    burst = np.repeat(events[-1:], 2 * READ_AHEAD + 2)
    for name in ("exch_ts", "local_ts"):
        burst[name] += 50_000_000
    burst["ev"] = DEPTH | BUY | LOCAL | EXCH
    burst["px"], burst["qty"] = 50_000.0, 1.0
    burst["ev"][0] = TRADE | SELL | LOCAL | EXCH
    burst["ev"][-1] |= np.uint64(BATCH_END)
    both = np.concatenate([events, burst])
    path = save_events(tmp_path / "m.npz", both, {"instrument": BTC.to_dict()})
    results = []
    for pace in ("max", "100x"):
        made = config(
            tmp_path, path, settings(tmp_path, policy=MakerParams()), pace=parse_pace(pace)
        )
        with Session(made) as session:
            report = session.run()
            last = max(fill.t_ns for fill in report.fill_list)
            results.append((report.fills, last))
    assert results[0] == results[1]
    assert results[0][1] == burst["local_ts"][0]


def test_crossed_book_stops_with_file_and_event(tmp_path: Path) -> None:
    events = market(50)
    bad = events[-1:].copy()
    bad["ev"] = DEPTH | BUY | LOCAL | EXCH | BATCH_END
    bad["px"], bad["qty"] = 70_000.0, 1.0
    path = save_events(
        tmp_path / "x.npz", np.concatenate([events, bad]), {"instrument": BTC.to_dict()}
    )
    with Session(config(tmp_path, path)) as session, pytest.raises(BookError) as error:
        session.run()
    assert f"x.npz: event {len(events)}" in str(error.value)
    assert "crossed" in str(error.value)


def test_event_of_an_unknown_symbol_stops_the_loop(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 50)
    with from_memory(config(tmp_path, data)) as session:
        session.feed.events["ival"][100] = 5
        with pytest.raises(BookError, match="event 100"):
            session.run()


def test_gateway_that_does_not_read_stops_the_loop(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 2000)
    made = config(tmp_path, data, settings(tmp_path, policy=MakerParams()))
    with (
        Session(made, gateway=Gateway.create(capacity=2)) as session,
        pytest.raises(EngineError, match="RING_FULL"),
    ):
        session.run()


def test_model_and_spec_must_fit(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 10)
    spec = tiny_spec(tmp_path, T)
    cases = [
        (
            {"width": spec.width + 1},
            FeatureMismatchError,
            rf"{spec.width + 1}\].*{spec.width} features",
        ),
        ({"hash_": "0" * 64}, FeatureMismatchError, "trained on feature hash 000.*" + spec.hash),
        ({"hash_": None}, FeatureMismatchError, "no metadata 'tickrt.feature_hash'"),
        ({"outputs": 2}, ModelError, r"expected \[batch, 3\]"),
        ({"dtype": 10}, ModelError, "has type FLOAT16, expected FLOAT"),
        ({"batch": 2}, ModelError, "fixed batch 2"),
    ]
    for i, (change, kind, text) in enumerate(cases):
        path = tiny_model(spec, tmp_path / f"bad{i}.onnx", **change)
        with pytest.raises(kind, match=text):
            Session(config(tmp_path, data, settings(tmp_path, model=str(path))))


def test_unknown_symbol_and_core_are_refused(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 10)
    with pytest.raises(ConfigError, match=r"'NOPE' is not in the data: BTCUSDT"):
        Session(config(tmp_path, data, settings(tmp_path, symbol="NOPE")))
    with pytest.raises(ConfigError, match="two files of one symbol"):
        Session(SessionConfig(data=(data, data), strategies=(settings(tmp_path),)))


def test_core_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 10)
    with (
        Session(config(tmp_path, data, pin_cpu=100_000)) as session,
        pytest.raises(ConfigError, match="cannot run on core 100000: choose one of"),
    ):
        session.run()


def test_failure_in_the_hot_thread_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise MemoryError("no memory")

    data = market_file(tmp_path / "m.npz", 10)
    with Session(config(tmp_path, data)) as session:
        monkeypatch.setattr("tickrt.runtime.session.run", broken)
        with pytest.raises(MemoryError, match="no memory"):
            session.run()


@pytest.mark.parametrize("text", ["", "fast", "-1x", "0x", "nan"])
def test_bad_pace_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected max, realtime or a speed"):
        parse_pace(text)
