"""One question about a core at a time, on a tuned server with one thing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machines import machine
from tickrt.observe.doctor import cores
from tickrt.observe.doctor.finding import Outcome

CORE = 2


@pytest.mark.parametrize(
    ("check", "change", "word"),
    [
        (cores.governor, {"cpu0__cpufreq__scaling_governor": "schedutil"}, "schedutil on 1"),
        (cores.clock_rate, {"scaling_max_freq": "2000000"}, "at most 2.00 of 4.00 GHz"),
        (cores.boost, {"no_turbo": "1"}, "off"),
        (cores.idle_states, {"dev__cpu_dma_latency": None, "state1__latency": "133"}, "C1, 133 µs"),
        (cores.siblings, {"thread_siblings_list": "2,6"}, "one core with 6"),
        (cores.mitigations, {"meltdown": "Mitigation: PTI"}, "1 active: meltdown"),
        (cores.isolation, {"cpu__isolated": "3"}, "isolcpus 3,"),
        (cores.isolation, {"cpu__nohz_full": "(null)"}, "nohz_full none"),
        (cores.interrupts, {"irq__24__effective_affinity_list": "0-7"}, "24 (nvme0q1)"),
    ],
)
def test_each_thing_that_costs(
    check: object, change: dict[str, str | None], word: str, tmp_path: Path
) -> None:
    def outcome(folder: str, **changes: str | None) -> Outcome:
        return check(machine("tuned", tmp_path / folder, **changes), CORE)  # type: ignore[operator]

    assert outcome("before").verdict == "ok"
    after = outcome("after", **change)
    assert after.verdict == "costs latency"
    assert word in after.read


def test_a_held_latency_limit_keeps_cores_awake(tmp_path: Path) -> None:
    deep = {"state1__latency": "133"}
    assert cores.idle_states(machine("tuned", tmp_path, **deep), CORE).verdict == "ok"


def test_a_disabled_state_does_not_count(tmp_path: Path) -> None:
    change = {"dev__cpu_dma_latency": None, "state1__latency": "133", "state1__disable": "1"}
    found = cores.idle_states(machine("tuned", tmp_path, **change), CORE)
    assert found.verdict == "ok"
    assert "POLL, 0 µs" in found.read


def test_callbacks_go_elsewhere_with_the_tick_or_by_name(tmp_path: Path) -> None:
    bare = "ro isolcpus=2-3 nohz_full=2-3"
    assert cores.isolation(machine("tuned", tmp_path / "a", cmdline=bare), CORE).verdict == "ok"
    change = {"cpu__nohz_full": "", "cmdline": "ro isolcpus=2-3 rcu_nocbs=all"}
    found = cores.isolation(machine("tuned", tmp_path / "b", **change), CORE)
    assert "rcu_nocbs all" in found.read
    assert found.why == "core 2: the timer tick interrupts it"


def test_an_interrupt_that_never_came_does_not_count(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path)
    assert tree.text("/proc/irq/25/effective_affinity_list") == "2"
    assert cores.interrupts(tree, CORE).read == "none on core 2"


def test_a_machine_of_one_core_has_nowhere_to_send_interrupts(tmp_path: Path) -> None:
    table = "           CPU0\n  24:     90210  IR-PCI-MSIX    1-edge      nvme0q1"
    found = cores.interrupts(machine("tuned", tmp_path, proc__interrupts=table), 0)
    assert found.verdict == "costs latency"
    assert "more cores" in found.fix


def test_boost_of_another_driver(tmp_path: Path) -> None:
    tree = machine("tuned", tmp_path, no_turbo=None)
    assert cores.boost(tree, CORE).verdict == "not readable here"
    tree.at("/sys/devices/system/cpu/cpufreq").mkdir()
    tree.at("/sys/devices/system/cpu/cpufreq/boost").write_text("0\n")
    assert cores.boost(tree, CORE).fix == "echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost"


def test_cores_that_never_sleep(tmp_path: Path) -> None:
    found = cores.idle_states(machine("laptop", tmp_path, cmdline="ro idle=poll"), 3)
    assert found.verdict == "ok"
