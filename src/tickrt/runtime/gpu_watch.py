"""What the GPU did while a session ran: NVML asked once a second, beside the loop.

Entry point: `GpuWatch`, a companion of the hot thread; `use()` says what it saw, for the report.

Invariants: its thread keeps away from the loop's core; a GPU that cannot be read costs a sentence
in the report, never the run. The driver is asked at least twice: when the loop starts and when it
has ended.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable

from tickrt.host.cores import cores_beside
from tickrt.observe.nvml import HARMLESS, GpuReading, GpuState, read_gpus
from tickrt.runtime.report_types import GpuFigure, GpuSeen, GpuUse

__all__ = ["GpuWatch"]

_EVERY_S = 1.0
_JOIN_S = 5.0
# field of `GpuState` → (what the report calls it, unit)
_FIGURES = {
    "utilisation_percent": ("utilisation", "%"),
    "memory_used_mib": ("memory in use", "MiB"),
    "sm_mhz": ("clock", "MHz"),
    "memory_mhz": ("memory clock", "MHz"),
    "power_w": ("power", "W"),
    "temperature_c": ("temperature", "°C"),
}


class GpuWatch:
    """Samples every GPU that the driver shows.

    Args:
        pin_cpu: the loop's core.
        read: what asks the driver.
        every_s: time between two samples.
    """

    def __init__(
        self,
        pin_cpu: int | None = None,
        read: Callable[[], GpuReading] = read_gpus,
        every_s: float = _EVERY_S,
    ) -> None:
        self._cores, self._read, self._every_s = cores_beside(pin_cpu), read, every_s
        self._samples: list[tuple[GpuState, ...]] = []
        self._problem: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tickrt-gpu-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """The loop has ended: one last sample."""
        self._over.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        os.sched_setaffinity(0, self._cores)  # of this thread
        last = False
        while True:
            reading = self._read()
            if not reading.gpus:
                self._problem = reading.problem or "the driver shows no GPU"
                return
            self._samples.append(reading.gpus)
            if last:
                return
            last = self._over.wait(self._every_s)

    def use(self) -> GpuUse:
        """What it saw."""
        if self._thread.is_alive():
            return GpuUse(samples=0, gpus=[], problem="NVML does not answer")
        by_bus: dict[str, list[GpuState]] = {}
        for sample in self._samples:
            for state in sample:
                by_bus.setdefault(state.bus, []).append(state)
        seen = [_seen(states) for states in by_bus.values()]
        return GpuUse(samples=len(self._samples), gpus=seen, problem=self._problem)


def _seen(states: list[GpuState]) -> GpuSeen:
    """One GPU's samples."""
    figures, missing, last = [], {}, states[-1]
    for field, (name, unit) in _FIGURES.items():
        values = [float(v) for s in states if (v := getattr(s, field)) is not None]
        if values:
            spread = {"min": min(values), "median": statistics.median(values), "max": max(values)}
            figures.append(GpuFigure(name=name, unit=unit, **spread))
        else:
            missing[name] = last.missing.get(field, "the driver does not say")
    throttled: dict[str, float] = {}
    known = [state.throttled for state in states if state.throttled is not None]
    for reason in sorted({reason for reasons in known for reason in reasons} - HARMLESS):
        throttled[reason] = sum(reason in reasons for reasons in known) / len(known)
    if not known:
        missing["throttle reasons"] = last.missing.get("throttled", "the driver does not say")
    return GpuSeen(
        name=last.name,
        bus=last.bus,
        driver=last.driver,
        memory_mib=last.memory_total_mib,
        figures=figures,
        throttled=throttled,
        missing=missing,
    )
