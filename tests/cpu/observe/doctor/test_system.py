"""Memory, schedule, permissions and surroundings, with one thing changed at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machines import machine
from tickrt.observe.doctor import memory, system
from tickrt.observe.doctor.permits import may_lock_memory, may_run_realtime

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max locked memory         {memory}            unlimited            bytes
Max realtime priority     {priority}                   99"""
STATUS = "Name:\tpython3\nCapEff:\t{mask:016x}\nCpus_allowed_list:\t0-7"
CORE = 2


@pytest.mark.parametrize(
    ("check", "change", "word"),
    [
        (memory.hugepages, {"transparent_hugepage__enabled": "always madvise [never]"}, "never"),
        (memory.swap, {"proc__swaps": "Filename\n/dev/dm-1 partition 8 0 -2"}, "/dev/dm-1"),
        (memory.numa, {"numa_balancing": "1"}, "numa_balancing on"),
        (memory.numa, {"node0__cpulist": "0-1"}, "core 2 on node unknown"),
        (memory.locking, {"self__limits": LIMITS.format(memory=65536, priority=0)}, "0.0625 MiB"),
        (system.clock, {"current_clocksource": "acpi_pm"}, "acpi_pm"),
        (system.clock, {"cpuinfo": "flags\t\t: fpu tsc constant_tsc"}, "no nonstop_tsc"),
        (system.realtime, {"self__limits": LIMITS.format(memory=0, priority=0)}, "RLIMIT_RTPRIO 0"),
        (system.realtime_budget, {"sched_rt_runtime_us": "950000"}, "950,000 of 1,000,000"),
        (system.quota, {"user.slice__cpu.max": "50000 100000"}, "user.slice: 0.5 cores"),
        (system.hypervisor, {"cpuinfo": "flags\t\t: fpu hypervisor"}, "unknown make; core 2: 0.00"),
    ],
)
def test_each_thing_that_costs(
    check: object, change: dict[str, str | None], word: str, tmp_path: Path
) -> None:
    assert check(machine("tuned", tmp_path / "a"), CORE).verdict == "ok"  # type: ignore[operator]
    after = check(machine("tuned", tmp_path / "b", **change), CORE)  # type: ignore[operator]
    assert after.verdict == "costs latency"
    assert word in after.read


def test_huge_pages_by_themselves_cost_nothing(tmp_path: Path) -> None:
    change = {"transparent_hugepage__enabled": "[always] madvise never"}
    assert memory.hugepages(machine("tuned", tmp_path, **change), CORE).verdict == "ok"


def test_a_capability_permits_what_a_limit_does_not(tmp_path: Path) -> None:
    none = {"self__limits": LIMITS.format(memory=65536, priority=10)}
    tree = machine("tuned", tmp_path / "a", **none)
    assert not may_lock_memory(tree).given
    assert may_run_realtime(tree, 10).given
    assert not may_run_realtime(tree, 11).given
    both = {**none, "self__status": STATUS.format(mask=1 << 14 | 1 << 23)}
    tree = machine("tuned", tmp_path / "b", **both)
    assert may_lock_memory(tree).read == "CAP_IPC_LOCK"
    assert may_run_realtime(tree, 99).read == "CAP_SYS_NICE"


def test_a_capability_of_another_user_namespace_permits_nothing(tmp_path: Path) -> None:
    mine = {"self__status": STATUS.format(mask=(1 << 41) - 1), "uid_map": "0 100000 65536"}
    limits = {"self__limits": LIMITS.format(memory=65536, priority=0)}
    tree = machine("tuned", tmp_path, **mine, **limits)
    assert not may_lock_memory(tree).given
    assert not may_run_realtime(tree).given


def test_time_that_was_stolen_is_told(tmp_path: Path) -> None:
    taken = "cpu2 700 0 100 100 0 0 0 100 0 0"
    found = system.hypervisor(machine("vm", tmp_path, proc__stat=taken), CORE)
    assert "10.00 % of its time stolen" in found.read
    assert found.why.endswith("and did")


def test_a_ration_of_the_older_kind_of_group(tmp_path: Path) -> None:
    assert system.quota(machine("vm", tmp_path / "a"), CORE).verdict == "ok"
    found = system.quota(machine("vm", tmp_path / "b", **{"cpu.cfs_quota_us": "300000"}), CORE)
    assert found.read == "/sys/fs/cgroup/cpu: 3 cores' worth in each 100 ms"
    assert found.verdict == "costs latency"


def test_where_a_process_runs(tmp_path: Path) -> None:
    assert system.surroundings(machine("tuned", tmp_path / "a")) == "bare metal"
    pod = {"1__cgroup": "0::/kubepods/pod1/abc"}
    tree = machine("vm", tmp_path / "b", **pod)
    assert system.surroundings(tree) == "a container on a virtual machine"
