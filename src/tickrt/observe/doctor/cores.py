"""The cores: their clock, their sleep, and who else runs on the hot thread's.

Entry points: `focus` (the core that is looked at), and a check for each question, a function of the
machine's files and that core.

Sources: the kernel's documentation, admin-guide/pm (cpufreq, cpuidle), admin-guide/hw-vuln,
admin-guide/kernel-parameters (isolcpus, nohz_full, rcu_nocbs).
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import NamedTuple

from tickrt.observe.doctor.finding import Outcome, costs, ok, unreadable
from tickrt.observe.doctor.tree import Tree, cores_of, cores_text

__all__ = [
    "Focus",
    "boost",
    "clock_rate",
    "focus",
    "governor",
    "idle_states",
    "interrupts",
    "isolation",
    "mitigations",
    "siblings",
]

_CPU = "/sys/devices/system/cpu"
_WAKES_SOON_US = 10
_SHOWN = 4


class Focus(NamedTuple):
    """The core that is looked at, and how it was chosen."""

    core: int
    chosen: str


def usable(tree: Tree) -> set[int]:
    """The cores that this process may use; empty where that cannot be read."""
    try:
        return cores_of(tree.value("/proc/self/status", "Cpus_allowed_list"))
    except OSError:
        return set()


def focus(tree: Tree, pin: int | None) -> Focus:
    """The named core; else the first isolated one that can be used, else the last that can be."""
    if pin is not None:
        return Focus(pin, "given")
    mine = usable(tree)
    isolated = cores_of(tree.maybe(f"{_CPU}/isolated")) & (mine or {0})
    if isolated:
        return Focus(min(isolated), "the first isolated one")
    return Focus(max(mine, default=0), "the last one that can be used; --pin names another")


def governor(tree: Tree, core: int) -> Outcome:
    """Who sets the clock."""
    tree.text(f"{_CPU}/cpu{core}/cpufreq/scaling_governor")  # refuses for all where it is missing
    paths = tree.find(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")
    counts = Counter(tree.text(path) for path in paths)
    read = ", ".join(f"{name} on {count} cores" for name, count in counts.most_common())
    if set(counts) == {"performance"}:
        return ok(read)
    return costs(
        read,
        "the clock rises only under load: the first ticks after a quiet time run slower",
        "sudo cpupower frequency-set -g performance",
    )


def clock_rate(tree: Tree, core: int) -> Outcome:
    """Whether a core may run as fast as it can."""
    names = ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
    now, most, can = (int(tree.text(f"{_CPU}/cpu{core}/cpufreq/{n}")) / 1e6 for n in names)
    read = f"{now:.2f} GHz now, at most {most:.2f} of {can:.2f} GHz"
    if most >= can:
        return ok(read)
    return costs(
        read, "its clock is held down", f"sudo cpupower frequency-set --max {can * 1000:.0f}MHz"
    )


def boost(tree: Tree, core: int) -> Outcome:
    """Whether cores may go beyond their base clock."""
    for path, off, on in (
        (f"{_CPU}/intel_pstate/no_turbo", "1", "0"),
        (f"{_CPU}/cpufreq/boost", "0", "1"),
    ):
        if tree.has(path):
            if tree.text(path) != off:
                return ok("on")
            return costs("off", "cores stay at their base clock", f"echo {on} | sudo tee {path}")
    return unreadable(f"neither {_CPU}/intel_pstate nor {_CPU}/cpufreq/boost is there")


def _latency_limit(tree: Tree) -> tuple[int, str]:
    """What ``/dev/cpu_dma_latency`` asks for, µs, and a word on it."""
    try:
        (limit,) = struct.unpack("=i", tree.data("/dev/cpu_dma_latency")[:4])
    except OSError as error:
        return 2**31 - 1, f"/dev/cpu_dma_latency: {error.strerror}"
    except struct.error:
        return 2**31 - 1, "/dev/cpu_dma_latency: not a number"
    held = limit < 10**9
    return limit, f"/dev/cpu_dma_latency {'at ' + str(limit) + ' µs' if held else 'not held'}"


def idle_states(tree: Tree, core: int) -> Outcome:
    """How deep an idle core sleeps."""
    if tree.boot_options().get("idle") == "poll":
        return ok("idle=poll: cores never sleep")
    folders = tree.find(f"{_CPU}/cpu{core}/cpuidle/state*")
    if not folders:
        driver = tree.maybe(f"{_CPU}/cpuidle/current_driver") or "none"
        return unreadable(f"no idle states of core {core} (cpuidle driver: {driver})")
    limit, held = _latency_limit(tree)
    states = [
        (int(tree.text(f"{folder}/latency")), tree.text(f"{folder}/name"))
        for folder in folders
        if tree.maybe(f"{folder}/disable") != "1"
    ]
    latency, name = max(((us, name) for us, name in states if us <= limit), default=(0, "none"))
    read = f"deepest state of core {core}: {name}, {latency} µs to wake; {held}"
    if latency <= _WAKES_SOON_US:
        return ok(read)
    return costs(
        read,
        "the loop spins and stays awake, but threads that it waits for (an engine, a feed) wake "
        f"up to {latency} µs late",
        f"sudo cpupower idle-set -D {_WAKES_SOON_US}, or boot with intel_idle.max_cstate=1 "
        "processor.max_cstate=1",
    )


def siblings(tree: Tree, core: int) -> Outcome:
    """Who shares the core's execution units."""
    topology = f"{_CPU}/cpu{core}/topology/thread_siblings_list"
    others = cores_of(tree.text(topology)) - {core}
    if not others:
        return ok(f"core {core} has no sibling")
    text = cores_text(others)
    return costs(
        f"core {core} is one core with {text}",
        f"whatever runs on {text} takes execution units and cache from the loop",
        f"leave {text} idle (isolate both), or boot with nosmt",
    )


def mitigations(tree: Tree, core: int) -> Outcome:
    """What the kernel does against flaws of the processor."""
    paths = tree.find(f"{_CPU}/vulnerabilities/*")
    if not paths:
        return unreadable(f"{_CPU}/vulnerabilities: nothing there")
    active = [p.rsplit("/", 1)[1] for p in paths if tree.text(p).startswith("Mitigation")]
    if not active:
        return ok("none active")
    return costs(
        f"{len(active)} active: {', '.join(sorted(active))}",
        "system calls and interrupts take longer; the loop itself makes no system call",
        "only where nobody else's code runs on this machine: boot with mitigations=off",
    )


def isolation(tree: Tree, core: int) -> Outcome:
    """Whether the scheduler, its tick and its callbacks leave the core alone."""
    options = tree.boot_options()
    isolated = cores_of(tree.text(f"{_CPU}/isolated"))
    tickless = cores_of(tree.maybe(f"{_CPU}/nohz_full"))
    everybody = options.get("rcu_nocbs") == "all"
    callbacks = cores_of(options.get("rcu_nocbs", "")) | tickless  # nohz_full implies it
    called = "all" if everybody else cores_text(callbacks)
    if not options and not callbacks:
        called = "unknown (/proc/cmdline)"
    read = f"isolcpus {cores_text(isolated)}, nohz_full {cores_text(tickless)}, rcu_nocbs {called}"
    mine = usable(tree)
    if mine and core not in mine:
        return costs(
            f"{read}; this process may use {cores_text(mine)}",
            f"the hot thread cannot be pinned to core {core}",
            f"start it with taskset -c {core}, or widen its cpuset",
        )
    missing = []
    if core not in isolated:
        missing.append("other threads run on it")
    if core not in tickless:
        missing.append("the timer tick interrupts it")
    if core not in callbacks and not everybody and options:
        missing.append("it runs the kernel's callbacks")
    if not missing:
        return ok(read)
    return costs(
        read,
        f"core {core}: {', '.join(missing)}",
        f"boot with isolcpus={core} nohz_full={core} rcu_nocbs={core}, and run with --pin {core}",
    )


def interrupts(tree: Tree, core: int) -> Outcome:
    """Which devices interrupt the core."""
    lines = tree.text("/proc/interrupts").splitlines()
    if not lines:
        return unreadable("/proc/interrupts: empty: a container hides it")
    columns = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    here: list[tuple[int, str]] = []
    for line in lines[1:]:
        number, _, rest = line.strip().partition(":")
        words = rest.split()
        counts = words[: len(columns)]
        if not number.isdigit() or not any(int(count) for count in counts):
            continue  # of the machine itself, or one that never came
        folder = f"/proc/irq/{number}"
        path = f"{folder}/effective_affinity_list"
        allowed = tree.text(path if tree.has(path) else f"{folder}/smp_affinity_list")
        if core in cores_of(allowed):
            here.append((int(number), words[-1]))
    if not here:
        return ok(f"none on core {core}")
    shown = ", ".join(f"{number} ({name})" for number, name in here[:_SHOWN])
    more = f" and {len(here) - _SHOWN} more" if len(here) > _SHOWN else ""
    rest_of = cores_text(set(columns) - {core})
    return costs(
        f"{len(here)} on core {core}: {shown}{more}",
        "each takes the core from the loop for microseconds",
        f"echo {rest_of} | sudo tee /proc/irq/{{{','.join(str(n) for n, _ in here)}}}"
        f"/smp_affinity_list, and keep irqbalance off core {core}"
        if rest_of != "none"
        else "a machine with more cores: here there is no other to take them",
    )
