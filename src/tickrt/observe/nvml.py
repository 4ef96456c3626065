"""What NVIDIA GPUs do at this moment, as their driver says it.

Entry point: `read_gpus()` → `GpuReading`. It is for off the path: a call takes milliseconds, more
where the driver must be woken first.

Invariants: it reads, and sets nothing. A machine without a GPU, a driver or `nvidia-ml-py` gives an
empty reading with the reason. A value that a GPU does not have is None, and `GpuState.missing` says
what the driver answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

__all__ = ["HARMLESS", "REASONS", "GpuReading", "GpuState", "read_gpus"]

T = TypeVar("T")

# nvmlClocksEventReasons (nvml.h): why a clock is below its maximum.
REASONS: Final[dict[int, str]] = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
HARMLESS: Final = frozenset({"idle", "application clocks"})
_COMPUTE: Final = {
    0: "default",
    1: "exclusive thread",
    2: "prohibited",
    3: "exclusive process",
}


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """One GPU at one moment; None: the driver did not say, see `missing`.

    Attributes:
        index: its number in the driver.
        name: of the model.
        bus: its address, such as ``00000000:3B:00.0``.
        driver: version of the driver.
        utilisation_percent: of the last moments in which a kernel ran.
        memory_used_mib: memory in use, by everybody.
        memory_total_mib: its memory.
        sm_mhz: clock of its multiprocessors.
        sm_max_mhz: the highest that they have.
        memory_mhz: clock of its memory.
        memory_max_mhz: the highest that it has.
        power_w: what it takes.
        power_limit_w: what it may take.
        power_default_w: what it may take by default.
        temperature_c: of the chip, °C.
        throttled: why its clock is below the highest (values of `REASONS`).
        persistent: the driver stays loaded while nobody uses it.
        compute_mode: who may use it: ``default``, ``exclusive process``, …
        mig: it is cut into instances.
        ecc: its memory corrects errors.
        pcie_gen: generation of its link as it is now; an idle GPU lowers it.
        pcie_max_gen: the highest that GPU and slot have.
        pcie_width: lanes in use.
        pcie_max_width: the most that GPU and slot have.
        missing: by field, what the driver said instead of a value.
    """

    index: int
    name: str
    bus: str
    driver: str
    utilisation_percent: int | None = None
    memory_used_mib: int | None = None
    memory_total_mib: int | None = None
    sm_mhz: int | None = None
    sm_max_mhz: int | None = None
    memory_mhz: int | None = None
    memory_max_mhz: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    temperature_c: int | None = None
    throttled: tuple[str, ...] | None = None
    persistent: bool | None = None
    compute_mode: str | None = None
    mig: bool | None = None
    ecc: bool | None = None
    pcie_gen: int | None = None
    pcie_max_gen: int | None = None
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuReading:
    """The GPUs that the driver shows; `problem` says why there is none to read."""

    gpus: tuple[GpuState, ...] = ()
    problem: str | None = None


def read_gpus() -> GpuReading:
    """Every GPU as it is now. Never raises for what a machine does not have."""
    try:
        import pynvml as nvml
    except ImportError:
        return GpuReading(problem="nvidia-ml-py is not installed: pip install 'tickrt[gpu]'")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuReading(problem=f"NVML: {error}")
    try:
        driver = str(nvml.nvmlSystemGetDriverVersion())
        count = nvml.nvmlDeviceGetCount()
        gpus = tuple(_state(nvml, index, driver) for index in range(count))
    except nvml.NVMLError as error:
        return GpuReading(problem=f"NVML: {error}")
    finally:
        nvml.nvmlShutdown()
    return GpuReading(gpus, None if gpus else "the driver shows no GPU")


def _state(nvml: Any, index: int, driver: str) -> GpuState:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    missing: dict[str, str] = {}

    def ask(names: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except nvml.NVMLError as error:
            missing.update(dict.fromkeys(names.split(), str(error)))
            return None

    known = {name: ask(name, read) for name, read in _questions(nvml, handle).items()}
    memory = ask("memory_used_mib memory_total_mib", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    return GpuState(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        bus=str(nvml.nvmlDeviceGetPciInfo(handle).busId),
        driver=driver,
        memory_used_mib=None if memory is None else memory.used >> 20,
        memory_total_mib=None if memory is None else memory.total >> 20,
        missing=missing,
        **known,
    )


def _questions(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    """How each field of `GpuState` that has a value of its own is read."""
    sm, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    return {
        "utilisation_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, sm),
        "sm_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, sm),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, memory),
        "memory_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, memory),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "power_default_w": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "throttled": lambda: reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        "persistent": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
        "compute_mode": lambda: _COMPUTE.get(nvml.nvmlDeviceGetComputeMode(handle), "unknown"),
        "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
        "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
        "pcie_gen": lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle),
        "pcie_max_gen": lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),
        "pcie_width": lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle),
        "pcie_max_width": lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle),
    }


def reasons(bits: int) -> tuple[str, ...]:
    """The names of a throttle word's bits; one that has no name here is given as a number."""
    named = tuple(name for bit, name in REASONS.items() if bits & bit)
    rest = bits & ~sum(REASONS)
    return (*named, f"{rest:#x}") if rest else named
