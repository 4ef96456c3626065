"""Every check on one machine.

Entry point: `examine(…)` → `Examination`.

Invariants: every check gives one finding, whatever happens in it: what cannot be read says so, with
the reason and where the process runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tickrt.observe.doctor import cores, gpu, memory, system, tools
from tickrt.observe.doctor.finding import Finding, Outcome, ok, unreadable
from tickrt.observe.doctor.tree import Tree
from tickrt.observe.machine import package_version
from tickrt.observe.nvml import GpuReading

__all__ = ["Examination", "examine"]

_OF_CORE: tuple[tuple[str, str, Callable[[Tree, int], Outcome]], ...] = (
    ("core", "governor", cores.governor),
    ("core", "clock rate", cores.clock_rate),
    ("core", "turbo", cores.boost),
    ("core", "idle states", cores.idle_states),
    ("core", "SMT sibling", cores.siblings),
    ("core", "isolation", cores.isolation),
    ("core", "interrupts", cores.interrupts),
    ("core", "mitigations", cores.mitigations),
    ("memory", "NUMA", memory.numa),
    ("memory", "hugepages", memory.hugepages),
    ("memory", "swap", memory.swap),
    ("memory", "locking", memory.locking),
    ("system", "clock", system.clock),
    ("system", "realtime priority", system.realtime),
    ("system", "realtime budget", system.realtime_budget),
    ("system", "processor ration", system.quota),
    ("system", "hypervisor", system.hypervisor),
)


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        core: the hot thread's core, which the checks of a core are about.
        chosen: how it was chosen.
        place: ``bare metal``, ``a virtual machine``, ``a container on bare metal``, …
        findings: in order, group by group.
    """

    core: int
    chosen: str
    place: str
    findings: tuple[Finding, ...]


def examine(
    tree: Tree,
    gpus: GpuReading,
    *,
    pin: int | None = None,
    version_of: Callable[[str], str | None] = package_version,
) -> Examination:
    """Run every check.

    Args:
        tree: the machine's files.
        gpus: what `nvml.read_gpus` read.
        pin: core of the hot thread; None: the first isolated one, else the last.
        version_of: the version of an installed package, or None.
    """
    core, chosen = cores.focus(tree, pin)
    place = system.surroundings(tree)
    looked = [
        *((group, what, _bound(check, tree, core)) for group, what, check in _OF_CORE),
        *_gpu_checks(tree, core, gpus),
        *_tool_checks(tree, gpus, version_of),
    ]
    findings = tuple(Finding(group, what, *_look(check, place)) for group, what, check in looked)
    return Examination(core, chosen, place, findings)


def _bound(check: Callable[[Tree, int], Outcome], tree: Tree, core: int) -> Callable[[], Outcome]:
    return lambda: check(tree, core)


def _look(check: Callable[[], Outcome], place: str) -> Outcome:
    try:
        outcome = check()
    except OSError as error:
        outcome = unreadable(f"{error.filename}: {error.strerror}")
    except (ValueError, IndexError) as error:
        outcome = unreadable(f"not as the kernel documents it: {error}")
    if outcome.verdict != "not readable here":
        return outcome
    return outcome._replace(why=f"{outcome.why} ({place})")


def _gpu_checks(
    tree: Tree, core: int, gpus: GpuReading
) -> Iterator[tuple[str, str, Callable[[], Outcome]]]:
    if not gpu.has_gpu(tree, gpus):
        yield (
            "GPU",
            "NVIDIA GPU",
            lambda: ok(
                "none: no card, no driver's files, nothing by NVML",
                "engines run on the CPU; clocks, power, PCIe, MPS, Vulkan do not matter",
            ),
        )
        return
    for what, check in gpu.machine_checks(tree, gpus).items():
        yield "GPU", what, check
    for bus in gpu.cards(tree):
        for what, check in gpu.card_checks(tree, core, bus).items():
            yield f"GPU {bus}", what, check
    for state in gpus.gpus:
        for what, check in gpu.state_checks(state).items():
            yield f"GPU {state.index}", what, check


def _tool_checks(
    tree: Tree, gpus: GpuReading, version_of: Callable[[str], str | None]
) -> Iterator[tuple[str, str, Callable[[], Outcome]]]:
    there = gpu.has_gpu(tree, gpus)
    yield "tools", "TensorRT", lambda: tools.tensorrt(version_of, there)
    yield "tools", "C compiler", lambda: tools.c_compiler(tree)
    yield "tools", "CUDA compiler", lambda: tools.cuda_compiler(tree, version_of, there)
