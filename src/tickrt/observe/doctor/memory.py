"""The memory: pages, swap, locks, and which socket it belongs to.

Entry points: a check for each question, a function of the machine's files and of the hot thread's
core.

Sources: the kernel's documentation, admin-guide/mm (transhuge, hugetlbpage, numa_memory_policy),
admin-guide/sysctl/kernel (numa_balancing); mlockall(2).
"""

from __future__ import annotations

import re

from tickrt.observe.doctor.finding import Outcome, costs, ok
from tickrt.observe.doctor.permits import may_lock_memory
from tickrt.observe.doctor.tree import Tree, cores_of

__all__ = ["hugepages", "locking", "node_of_core", "numa", "swap"]

_THP = "/sys/kernel/mm/transparent_hugepage"
_NODES = "/sys/devices/system/node"


def hugepages(tree: Tree, core: int) -> Outcome:
    """How large the pages of the loop's arrays are, and who makes them."""
    chosen = {}
    for name in ("enabled", "defrag"):
        text = tree.text(f"{_THP}/{name}")
        match = re.search(r"\[(\S+)\]", text)
        chosen[name] = match[1] if match else text
    reserved = tree.value("/proc/meminfo", "HugePages_Total") or "0"
    read = f"transparent {chosen['enabled']}, defrag {chosen['defrag']}; {reserved} reserved"
    if chosen["enabled"] == "never":
        return costs(
            read,
            "the arrays of the loop lie on small pages: more misses of the TLB",
            f"echo madvise | sudo tee {_THP}/enabled",
        )
    if chosen["enabled"] == "always" and chosen["defrag"] == "always":
        return costs(
            read,
            "a page fault may wait while the kernel moves memory together",
            f"echo madvise | sudo tee {_THP}/enabled {_THP}/defrag",
        )
    return ok(read)


def swap(tree: Tree, core: int) -> Outcome:
    """Whether memory may go to a disk."""
    areas = [line.split()[0] for line in tree.text("/proc/swaps").splitlines()[1:]]
    if not areas:
        return ok("none")
    return costs(
        f"{', '.join(areas)}, swappiness {tree.maybe('/proc/sys/vm/swappiness') or 'unknown'}",
        "a page that was swapped out comes back in milliseconds",
        "run with --lock-memory, or sudo swapoff -a",
    )


def locking(tree: Tree, core: int) -> Outcome:
    """Whether a run may lock its memory."""
    permit = may_lock_memory(tree)
    if permit.given:
        return ok(f"permitted: {permit.read}")
    return costs(permit.read, "--lock-memory is not permitted", permit.fix)


def node_of_core(tree: Tree, core: int) -> int | None:
    """The NUMA node of a core; None where the kernel names none."""
    for path in tree.find(f"{_NODES}/node[0-9]*/cpulist"):
        if core in cores_of(tree.text(path)):
            return int(path.split("/")[-2].removeprefix("node"))
    return None


def numa(tree: Tree, core: int) -> Outcome:
    """Whether memory may lie beside another socket than the core's."""
    nodes = cores_of(tree.text(f"{_NODES}/online"))
    node = node_of_core(tree, core)
    where = f"core {core} on node {'unknown' if node is None else node}"
    read = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {where}"
    if len(nodes) < 2:
        return ok(read)
    if tree.maybe("/proc/sys/kernel/numa_balancing") == "1":
        return costs(
            f"{read}, numa_balancing on",
            "the kernel unmaps pages of the loop to see who uses them: page faults on the path",
            "sudo sysctl kernel.numa_balancing=0",
        )
    if node is None:
        return costs(
            read,
            "memory may lie beside another socket",
            "numactl --cpunodebind=N --membind=N tickrt run …, N the node of the core",
        )
    return ok(read, f"start with numactl --membind={node}, so that all memory is the core's own")
