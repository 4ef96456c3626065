"""Where a host runs: on any core of the process, and never on the loop's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.sessions import config, market_file
from tickrt.errors import ConfigError
from tickrt.host.cores import cores_beside, process_cores
from tickrt.host.process import HostProcess
from tickrt.runtime.session import Session

CORES = sorted(os.sched_getaffinity(0))
HOT = CORES[-1]
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="this process may use one core only")


def pinned(body: Callable[[], Any]) -> Any:
    """What `body` gives in a thread that runs on the loop's core alone."""
    given: list[Any] = []

    def work() -> None:
        os.sched_setaffinity(0, {HOT})
        given.append(body())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return given[0]


def cores_of_threads(pid: int) -> set[frozenset[int]]:
    """The cores of each thread of a process."""
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return {frozenset(os.sched_getaffinity(thread)) for thread in threads}


def watchers() -> set[frozenset[int]]:
    """The cores of our threads that watch hosts."""
    found = [thread for thread in threading.enumerate() if thread.name == "tickrt-host-watch"]
    return {frozenset(os.sched_getaffinity(one.native_id or 0)) for one in found}


@two_cores
def test_a_pinned_thread_does_not_narrow_the_process() -> None:
    assert pinned(process_cores) == frozenset(CORES)


@two_cores
def test_what_stands_beside_the_loop_leaves_its_core_alone() -> None:
    beside = cores_beside(HOT)
    assert beside
    assert beside <= set(CORES) - {HOT}
    assert pinned(cores_beside) == beside  # its core is known without being named
    assert cores_beside() == frozenset(CORES)  # nothing is pinned
    assert cores_beside(100_000) == frozenset(CORES)


@two_cores
def test_threads_of_one_physical_core_are_left_out_while_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    siblings = tmp_path / "siblings"
    monkeypatch.setattr("tickrt.host.cores._SIBLINGS", str(siblings))
    monkeypatch.setattr("tickrt.host.cores.process_cores", lambda: frozenset(range(8)))
    siblings.write_text("2-3\n")
    assert cores_beside(3) == {0, 1, 4, 5, 6, 7}
    siblings.write_text("3,7\n")
    assert cores_beside(3) == {0, 1, 2, 4, 5, 6}
    siblings.write_text("0-7\n")  # nothing else would be left
    assert cores_beside(3) == {0, 1, 2, 4, 5, 6, 7}
    monkeypatch.setattr("tickrt.host.cores.process_cores", lambda: frozenset({3}))
    assert cores_beside(3) == {3}


@two_cores
def test_a_host_made_by_a_pinned_thread_inherits_nothing_of_it() -> None:
    """By the thread of the loop itself, as a benchmark would: neither it nor its watcher stays."""

    def body() -> Any:
        with HostProcess() as host:
            return cores_of_threads(host.pid), watchers(), os.sched_getaffinity(0)

    assert pinned(body) == ({cores_beside(HOT)}, {cores_beside(HOT)}, {HOT})


@two_cores
def test_the_host_of_a_session_keeps_away_from_its_pinned_core(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 20)
    asked = {"backend": "reference", "pin_cpu": HOT}
    with Session(config(tmp_path, data, **asked)) as session:
        assert watchers() == {cores_beside(HOT)}
        (engine,) = session.assembly.engines
        assert cores_of_threads(engine.host.pid) == {cores_beside(HOT)}  # type: ignore[attr-defined]


def test_cores_that_are_not_ours_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"cores: \[100000\]: choose from \["):
        HostProcess(cores={100_000})
    with HostProcess(cores={CORES[0], 100_000}) as host:
        assert cores_of_threads(host.pid) == {frozenset({CORES[0]})}
