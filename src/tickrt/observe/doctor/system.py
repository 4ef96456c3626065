"""The system: its clock, its schedule, and what stands between it and the hardware.

Entry points: `surroundings`, and a check for each question, a function of the machine's files and
of the hot thread's core.

Sources: sched(7), the kernel's documentation, scheduler/sched-rt-group, scheduler/sched-bwc,
admin-guide/cgroup-v2; proc_stat(5).
"""

from __future__ import annotations

from tickrt.observe.doctor.finding import Outcome, costs, ok
from tickrt.observe.doctor.permits import may_run_realtime
from tickrt.observe.doctor.tree import Tree

__all__ = ["clock", "hypervisor", "quota", "realtime", "realtime_budget", "surroundings"]

_CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")
_STEADY = ("constant_tsc", "nonstop_tsc")
_CONTAINERS = ("docker", "kubepods", "containerd", "libpod", "lxc")
_STOLEN = 0.001


def in_container(tree: Tree) -> bool:
    """Whether these are the files of a container."""
    marks = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    groups = tree.maybe("/proc/1/cgroup")
    return any(map(tree.has, marks)) or any(name in groups for name in _CONTAINERS)


def _guest(tree: Tree) -> bool:
    flags = tree.value("/proc/cpuinfo", "flags").split()
    return "hypervisor" in flags or tree.has("/sys/hypervisor/type")


def surroundings(tree: Tree) -> str:
    """``bare metal``, ``a virtual machine``, ``a container``, or a container in one."""
    try:
        machine = "a virtual machine" if _guest(tree) else "bare metal"
    except OSError:
        machine = "an unknown machine"
    return f"a container on {machine}" if in_container(tree) else machine


def clock(tree: Tree, core: int) -> Outcome:
    """Whether the processor's own clock can be trusted."""
    source = tree.text(_CLOCK)
    flags = tree.value("/proc/cpuinfo", "flags").split()
    missing = [flag for flag in _STEADY if flags and flag not in flags]
    read = f"clocksource {source}{', no ' + ', '.join(missing) if missing else ''}"
    if source in _SLOW_CLOCKS:
        return costs(
            read,
            "the kernel does not trust the processor's clock: reading the time is a system call, "
            "and latencies measured here may be wrong",
            "see dmesg for the reason (firmware, mostly); boot with tsc=reliable if it is known "
            "to be good",
        )
    if missing:
        return costs(
            read,
            "the processor's clock changes with its speed: latencies measured here are wrong",
            "another machine: every x86 server of the last ten years has both",
        )
    return ok(read)


def realtime(tree: Tree, core: int) -> Outcome:
    """Whether the hot thread may have a priority in real time."""
    permit = may_run_realtime(tree)
    if permit.given:
        return ok(f"permitted: {permit.read}")
    return costs(permit.read, "--realtime-priority is not permitted", permit.fix)


def realtime_budget(tree: Tree, core: int) -> Outcome:
    """How much of each period threads in real time get."""
    runtime = int(tree.text("/proc/sys/kernel/sched_rt_runtime_us"))
    period = int(tree.text("/proc/sys/kernel/sched_rt_period_us"))
    if runtime < 0 or runtime >= period:
        return ok("no limit")
    return costs(
        f"sched_rt_runtime_us {runtime:,} of {period:,}",
        "a spinning thread with --realtime-priority may be stopped for "
        f"{(period - runtime) / 1000:g} ms of each {period / 1000:g}",
        "only with a core to spare for everything else: sudo sysctl kernel.sched_rt_runtime_us=-1",
    )


def hypervisor(tree: Tree, core: int) -> Outcome:
    """Whether a hypervisor stands between the loop and its core."""
    if not _guest(tree):
        return ok("none: bare metal")
    named = [tree.maybe(f"/sys/class/dmi/id/{part}") for part in ("sys_vendor", "product_name")]
    name = " ".join(filter(None, named)) or tree.maybe("/sys/hypervisor/type") or "unknown make"
    total, stolen = 0, 0
    for line in tree.maybe("/proc/stat").splitlines():
        if line.startswith(f"cpu{core} "):
            times = [int(word) for word in line.split()[1:9]]
            total, stolen = sum(times), times[7] if len(times) > 7 else 0
    share = f"{100 * stolen / total:.2f} % of its time stolen" if total else "stolen time unknown"
    spent = total and stolen / total > _STOLEN
    return costs(
        f"{name}; core {core}: {share}",
        "it takes the core away when it wants to"
        + (", and did" if spent else "; what it took shows in the p99.9 of the report's `spin`"),
        "bare metal, or an instance with cores of its own (pinned, no sharing)",
    )


def _groups(tree: Tree) -> list[tuple[str, bool]]:
    """The folders of our control group and of those above it, and whether they are of version 2."""
    found = []
    for line in tree.text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        unified = controllers == ""
        if not unified and "cpu" not in controllers.split(","):
            continue
        base = "/sys/fs/cgroup" if unified else "/sys/fs/cgroup/cpu"
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            found.append(("/".join([base, *parts[:depth]]), unified))
    return found


def quota(tree: Tree, core: int) -> Outcome:
    """Whether the control group has a ration of processor time."""
    for folder, unified in _groups(tree):
        if unified:
            limit, _, period = tree.maybe(f"{folder}/cpu.max").partition(" ")
        else:
            limit = tree.maybe(f"{folder}/cpu.cfs_quota_us")
            period = tree.maybe(f"{folder}/cpu.cfs_period_us")
        if limit not in ("", "max", "-1"):
            cores = int(limit) / int(period)
            return costs(
                f"{folder}: {cores:g} cores' worth in each {int(period) / 1000:g} ms",
                "a process that has used its ration is stopped until the next period: a spinning "
                "loop uses a core of it",
                "whole cores instead of a ration: --cpuset-cpus of a container, not --cpus; the "
                "static CPU manager and whole requests in Kubernetes",
            )
    if not tree.has("/sys/fs/cgroup"):
        raise FileNotFoundError(2, "No such file or directory", "/sys/fs/cgroup")
    return ok("none")
