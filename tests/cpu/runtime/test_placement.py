"""Where and how the hot thread runs: it alone, as far as permitted, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sessions import BTC, config, market_file
from tickrt.backtest.run import Backtest
from tickrt.errors import ConfigError
from tickrt.feeds.file_feeder import FileFeeder
from tickrt.market.event_stream import open_stream
from tickrt.memory.ring import Ring
from tickrt.observe.clock import ticks_per_ns
from tickrt.observe.doctor.permits import may_lock_memory, may_run_realtime
from tickrt.observe.doctor.tree import Tree
from tickrt.observe.kernels import read_clock
from tickrt.report.report import load_report, write_report
from tickrt.report.summary import assumed, went_wrong
from tickrt.runtime.lifecycle import run_to_end
from tickrt.runtime.loop.loop_kernels import Pace, run
from tickrt.runtime.placement import Placement, locked_memory, place_this_thread
from tickrt.runtime.results import counter
from tickrt.runtime.session import Session

CORES = sorted(os.sched_getaffinity(0))
PRIORITY = 5
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="this process may use one core only")


def locked_kib() -> int:
    return int(Tree().value("/proc/self/status", "VmLck").split()[0])


def how(thread: int) -> tuple[frozenset[int], int]:
    """The cores and the policy of a thread."""
    policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    return frozenset(os.sched_getaffinity(thread)), policy


def in_a_thread(body: Any) -> Any:
    """What `body` gave in a thread of its own, or its exception."""
    given: list[Any] = []

    def work() -> None:
        try:
            given.append(body())
        except ConfigError as error:
            given.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return given[0]


@two_cores
def test_only_the_hot_thread_is_pinned_and_raised(tmp_path: Path) -> None:
    """A session at recorded pace, fed from a file; its threads are looked at from outside."""
    data, ring, mine = market_file(tmp_path / "m.npz", 2000), Ring.local(256), how(0)
    seen: dict[str, tuple[frozenset[int], int]] = {}
    with Session(config(tmp_path, data), (ring.view, [BTC])) as session:
        loop, feed, feeder = (
            session.assembly.loop,
            session.feed,
            FileFeeder([open_stream(data)], ring),
        )
        pace = Pace(1, int(read_clock()), 1_001_000_000, ticks_per_ns())

        def look() -> None:
            if counter(session.assembly, "events") > 0 and not loop.stop[1]:
                for thread in threading.enumerate():
                    assert thread.native_id is not None
                    seen[thread.name] = how(thread.native_id)
                loop.stop[1] = 1

        ended = run_to_end(
            lambda: int(run(feed, loop, pace)),
            loop.stop,
            progress=look,
            placement=Placement(CORES[-1], realtime_priority=PRIORITY),
            companions=[session.recorder, feeder],
        )
    pinned, raised = ended.arranged
    assert (pinned.what, pinned.done, pinned.detail) == ("pin_cpu", True, f"core {CORES[-1]}")
    assert raised.done == may_run_realtime(Tree(), PRIORITY).given
    policy = os.SCHED_FIFO if raised.done else mine[1]
    assert seen.pop("tickrt-hot") == (frozenset({CORES[-1]}), policy)
    assert {"tickrt-file-feeder", "tickrt-recorder", "MainThread"} <= set(seen)
    assert set(seen.values()) == {mine}
    assert how(0) == mine


@two_cores
def test_what_it_starts_inherits_no_priority() -> None:
    if not may_run_realtime(Tree(), PRIORITY).given:
        pytest.skip("a priority in real time is not permitted here")

    def body() -> Any:
        place_this_thread(Placement(realtime_priority=PRIORITY))
        return how(0)[1], in_a_thread(lambda: how(0)[1])

    assert in_a_thread(body) == (os.SCHED_FIFO, os.SCHED_OTHER)


def test_a_run_asks_for_all_and_reports_it(tmp_path: Path) -> None:
    asked = {"pin_cpu": CORES[-1], "lock_memory": True, "realtime_priority": PRIORITY}
    mine, locked = how(0), locked_kib()
    with Session(config(tmp_path, market_file(tmp_path / "m.npz", 200), **asked)) as session:
        report = session.run()
    assert report.rows == 200
    assert (how(0), locked_kib()) == (mine, locked)
    assert report.hot_thread is not None
    came = {one.what: one for one in report.hot_thread}
    assert set(came) == set(asked)
    assert came["pin_cpu"].done
    assert came["lock_memory"].done == may_lock_memory(Tree()).given
    raised = may_run_realtime(Tree(), PRIORITY).given and len(CORES) > 1
    assert came["realtime_priority"].done == raised
    path, _ = write_report(report, tmp_path / "out")
    assert load_report(path).hot_thread == report.hot_thread
    for one in report.hot_thread:
        if one.done:
            assert one.fix is None
        else:
            assert one.fix is not None
            assert any(sentence.startswith(one.what) for sentence in went_wrong(report))
    assert any(f"core {CORES[-1]}" in sentence for sentence in assumed(report))


def test_who_asks_for_nothing_is_told_nothing(tmp_path: Path) -> None:
    with Session(config(tmp_path, market_file(tmp_path / "m.npz", 20))) as session:
        assert session.run().hot_thread is None


def test_a_backtest_uses_none_of_it(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 100)
    asked = {"pin_cpu": 100_000, "lock_memory": True, "realtime_priority": PRIORITY}
    with Backtest(config(tmp_path, data, **asked)) as test:
        assert test.run().hot_thread is None


def test_memory_is_locked_while_it_runs() -> None:
    if not may_lock_memory(Tree()).given:
        pytest.skip("memory may not be locked here")
    before = locked_kib()
    with locked_memory(True) as came:
        (one,) = came
        assert (one.what, one.done, one.fix) == ("lock_memory", True, None)
        assert locked_kib() > 10_000
    assert locked_kib() == before


def test_memory_that_its_owner_locked_stays_locked() -> None:
    if not may_lock_memory(Tree()).given:
        pytest.skip("memory may not be locked here")
    before = locked_kib()
    with locked_memory(True):  # as the process of a user of ours
        with locked_memory(True) as came:
            assert came[0].detail.endswith("it stays locked: some of it was before")
        assert locked_kib() > 10_000
    assert locked_kib() == before


def test_memory_is_unlocked_whatever_happens() -> None:
    def fails() -> int:
        raise KeyError("of the loop")

    before = locked_kib()
    with pytest.raises(KeyError, match="of the loop"):
        run_to_end(fails, np.zeros(2, np.int64), placement=Placement(lock_memory=True))
    assert locked_kib() == before


def test_one_core_is_not_taken_from_everything_else() -> None:
    def body() -> Any:
        os.sched_setaffinity(0, {CORES[0]})
        pinned = in_a_thread(lambda: place_this_thread(Placement(CORES[0], False, PRIORITY)))
        free = in_a_thread(lambda: place_this_thread(Placement(realtime_priority=PRIORITY)))
        return pinned[1], free[0]

    for one in in_a_thread(body):
        assert (one.what, one.done) == ("realtime_priority", False)
        assert "nothing else of it would run" in one.detail


UNPRIVILEGED = """
import ctypes, json, resource, struct, sys
from dataclasses import asdict
from pathlib import Path
header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
assert ctypes.CDLL(None).capset(header, nothing) == 0  # all capabilities are gone
for limit, most in ((resource.RLIMIT_RTPRIO, 0), (resource.RLIMIT_MEMLOCK, 1 << 16)):
    resource.setrlimit(limit, (most, most))
from helpers.sessions import config
from tickrt.runtime.session import Session
folder = Path(sys.argv[1])
asked = {"lock_memory": True, "realtime_priority": 5}
with Session(config(folder, folder / "m.npz", **asked)) as session:
    report = session.run()
print(json.dumps([report.rows, [asdict(one) for one in report.hot_thread]]))
"""


@two_cores
def test_what_is_not_permitted_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    market_file(tmp_path / "m.npz", 50)
    config(tmp_path, tmp_path / "m.npz")  # writes model and spec
    command = [sys.executable, "-c", UNPRIVILEGED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, (memory, priority) = json.loads(done.stdout)
    assert rows == 50
    assert (memory["what"], memory["done"]) == ("lock_memory", False)
    assert memory["detail"] == "RLIMIT_MEMLOCK 0.0625 MiB, no CAP_IPC_LOCK"
    assert "memlock unlimited" in memory["fix"]
    assert (priority["what"], priority["done"]) == ("realtime_priority", False)
    assert "Operation not permitted (RLIMIT_RTPRIO 0, no CAP_SYS_NICE)" in priority["detail"]
    assert "rtprio 99" in priority["fix"]


@pytest.mark.parametrize("core", [100_000, 2**40])
def test_a_core_that_is_not_there_is_an_error(core: int) -> None:
    error = in_a_thread(lambda: place_this_thread(Placement(core)))
    assert isinstance(error, ConfigError)
    assert f"cannot run on core {core}: choose one of" in str(error)
