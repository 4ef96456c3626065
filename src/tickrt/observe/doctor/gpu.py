"""The NVIDIA GPUs: their state, their way to the loop's core, and how many engines may share one.

Entry points: `has_gpu`, `machine_checks` (once a machine), `card_checks` (from the files of each
card), `state_checks` (what NVML read of one).

Sources: the NVML reference, `nvidia-smi -h`, the kernel's documentation, ABI/testing/sysfs-bus-pci.
Figures: measured on an H100, host to host.
"""

from __future__ import annotations

from collections.abc import Callable

from tickrt.observe.doctor.finding import Outcome, costs, ok, unreadable
from tickrt.observe.doctor.memory import node_of_core
from tickrt.observe.doctor.tree import Tree, cores_of
from tickrt.observe.nvml import HARMLESS, GpuReading, GpuState

__all__ = ["card_checks", "cards", "has_gpu", "machine_checks", "state_checks"]

Check = Callable[[], Outcome]

_PCI = "/sys/bus/pci/devices"
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_AWAKE = 0.9  # of the highest clock
_MPS = "nvidia-cuda-mps-control"
_COMM = 15  # characters of a program's name that the kernel keeps


def cards(tree: Tree) -> list[str]:
    """The PCI addresses of NVIDIA's GPUs."""
    return [
        path.rsplit("/", 2)[1]
        for path in tree.find(f"{_PCI}/*/vendor")
        if tree.maybe(path) == _NVIDIA
        and tree.maybe(path.replace("/vendor", "/class")).startswith(_DISPLAY)
    ]


def has_gpu(tree: Tree, reading: GpuReading) -> bool:
    """Whether there is a GPU, by its card, its driver's files or NVML."""
    files = tree.find("/proc/driver/nvidia/gpus/*") or tree.find("/dev/nvidia[0-9]*")
    return bool(reading.gpus or files or cards(tree))


def machine_checks(tree: Tree, reading: GpuReading) -> dict[str, Check]:
    """What concerns all GPUs of the machine."""
    return {
        "driver": lambda: driver(tree, reading),
        "NVML": lambda: nvml(reading),
        "MPS": lambda: mps(tree),
        "Vulkan": lambda: vulkan(tree),
        "GDRCopy": lambda: gdrcopy(tree),
    }


def card_checks(tree: Tree, core: int, bus: str) -> dict[str, Check]:
    """What the files of the card at a PCI address say."""
    return {
        "PCIe link": lambda: link(tree, bus),
        "NUMA": lambda: gpu_node(tree, core, bus),
    }


def state_checks(gpu: GpuState) -> dict[str, Check]:
    """What NVML read of a GPU."""
    return {
        "clocks": lambda: clocks(gpu),
        "power": lambda: power(gpu),
        "throttling": lambda: throttling(gpu),
        "persistence": lambda: persistence(gpu),
        "compute mode": lambda: compute_mode(gpu),
        "MIG": lambda: mig(gpu),
        "ECC": lambda: ecc(gpu),
    }


def driver(tree: Tree, reading: GpuReading) -> Outcome:
    """The driver's version."""
    if reading.gpus:
        return ok(f"{reading.gpus[0].driver}; {', '.join(gpu.name for gpu in reading.gpus)}")
    line = tree.text("/proc/driver/nvidia/version").splitlines()[0]
    return ok(" ".join(line.partition(":")[2].split()))


def nvml(reading: GpuReading) -> Outcome:
    """Whether clocks, power, throttling, persistence, modes and ECC could be read."""
    if reading.problem is None:
        return ok(f"{len(reading.gpus)} read")
    return unreadable(
        f"{reading.problem}; so no clocks, power, throttling, persistence, compute mode, MIG, ECC",
        "pip install 'tickrt[gpu]' beside a driver that is loaded; --gpus all of a container",
    )


def mps(tree: Tree) -> Outcome:
    """Whether several engines can share a GPU without time slices."""
    program = tree.program(_MPS)
    names = [tree.maybe(path) for path in tree.find("/proc/[0-9]*/comm")]
    running = "a control daemon is running" if _MPS[:_COMM] in names else "no daemon is running"
    if program is not None:
        return ok(f"{program}; {running}", "a session starts its own where it needs one")
    return costs(
        f"no {_MPS}; {running}",
        "a second engine on this GPU would take turns with the first: slices of 2.4 ms",
        "install the driver's compute utilities (nvidia-compute-utils-…)",
    )


_HOST_MEMORY = "rows reach the GPU through host memory: about 0.4 µs more a tick"


def vulkan(tree: Tree) -> Outcome:
    """Whether the loop can write into the GPU's memory."""
    loader = tree.library("libvulkan.so.1*")
    icds = [
        path
        for folder in ("/etc/vulkan/icd.d", "/usr/share/vulkan/icd.d")
        for path in tree.find(f"{folder}/*nvidia*.json")
    ]
    read = f"loader {loader or 'not found'}, NVIDIA's driver {icds[0] if icds else 'not found'}"
    if loader and icds:
        return ok(read)
    fix = "apt install libvulkan1 and the driver's libnvidia-gl-…; NVIDIA_DRIVER_CAPABILITIES=all"
    return costs(read, _HOST_MEMORY, f"{fix} for a container")


def gdrcopy(tree: Tree) -> Outcome:
    """What there is of it; nothing uses it: only the process that runs CUDA could map memory."""
    library, device = tree.library("libgdrapi.so*"), tree.has("/dev/gdrdrv")
    read = f"library {library or 'not found'}, /dev/gdrdrv {'there' if device else 'not there'}"
    return ok(read, "not used: it maps memory for the process that runs CUDA alone; Vulkan is")


def link(tree: Tree, bus: str) -> Outcome:
    """Whether the card has all of its PCIe link."""
    speeds = [tree.text(f"{_PCI}/{bus}/{which}_link_speed") for which in ("current", "max")]
    widths = [int(tree.text(f"{_PCI}/{bus}/{which}_link_width")) for which in ("current", "max")]
    if not all(speed[:1].isdigit() for speed in speeds) or 0 in widths:
        return unreadable(f"{_PCI}/{bus}: link {speeds[0]}: the hypervisor does not show it")
    now, most = (float(speed.split()[0]) for speed in speeds)
    read = f"{now:g} GT/s × {widths[0]} of {most:g} GT/s × {widths[1]}"
    if widths[0] < widths[1]:
        return costs(read, "fewer lanes than the card has", "another slot, or reseat the card")
    if now < most:
        return costs(
            read,
            "an idle GPU lowers its link: the first rows after a quiet time travel slower",
            "look again under load; if it stays: the slot's generation in the firmware's setup",
        )
    return ok(read)


def gpu_node(tree: Tree, core: int, bus: str) -> Outcome:
    """Whether the GPU hangs on the core's own socket."""
    node, mine = int(tree.text(f"{_PCI}/{bus}/numa_node")), node_of_core(tree, core)
    if len(cores_of(tree.text("/sys/devices/system/node/online"))) == 1:
        return ok("the machine has one node")
    if node < 0 or mine is None:
        return unreadable(f"{bus} on node {node}: the firmware or the hypervisor names none")
    read = f"{bus} on node {node}, core {core} on node {mine}"
    if node == mine:
        return ok(read)
    near = tree.maybe(f"{_PCI}/{bus}/local_cpulist")
    return costs(
        read,
        "each row and each answer crosses the link between the sockets",
        f"--pin a core of {near or f'node {node}'}",
    )


def _unsaid(gpu: GpuState, *names: str) -> Outcome:
    texts = dict.fromkeys(gpu.missing[name] for name in names if name in gpu.missing)
    return unreadable(f"NVML: {', '.join(texts) or 'no value'}")


def clocks(gpu: GpuState) -> Outcome:
    """Whether its multiprocessors run at their highest clock."""
    if gpu.sm_mhz is None or not gpu.sm_max_mhz:
        return _unsaid(gpu, "sm_mhz", "sm_max_mhz")
    read = f"SM {gpu.sm_mhz} of {gpu.sm_max_mhz} MHz"
    if gpu.memory_mhz is not None:
        read += f", memory {gpu.memory_mhz} of {gpu.memory_max_mhz or '?'} MHz"
    if gpu.sm_mhz >= _AWAKE * gpu.sm_max_mhz:
        return ok(read)
    return costs(
        read,
        "the clock rises only under load: the first ticks of an engine run slower",
        f"sudo nvidia-smi -i {gpu.index} -lgc {gpu.sm_max_mhz},{gpu.sm_max_mhz} (ends with -rgc)",
    )


def power(gpu: GpuState) -> Outcome:
    """Whether it may take as much power as it was made for."""
    if gpu.power_limit_w is None or gpu.power_w is None:
        return _unsaid(gpu, "power_w", "power_limit_w")
    read = f"{gpu.power_w:.0f} W, at most {gpu.power_limit_w:.0f} W"
    if gpu.temperature_c is not None:
        read += f", {gpu.temperature_c} °C"
    if gpu.power_default_w is None or gpu.power_limit_w >= gpu.power_default_w:
        return ok(read)
    return costs(
        f"{read} (by default {gpu.power_default_w:.0f} W)",
        "it lowers its clock sooner than it must",
        f"sudo nvidia-smi -i {gpu.index} -pl {gpu.power_default_w:.0f}",
    )


def throttling(gpu: GpuState) -> Outcome:
    """Why its clock is below the highest."""
    if gpu.throttled is None:
        return _unsaid(gpu, "throttled")
    read = ", ".join(gpu.throttled) or "none"
    serious = [reason for reason in gpu.throttled if reason not in HARMLESS]
    if not serious:
        return ok(read)
    return costs(read, "its clock is held down", "cooling and power: nvidia-smi -q -d PERFORMANCE")


def persistence(gpu: GpuState) -> Outcome:
    """Whether the driver stays loaded."""
    if gpu.persistent is None:
        return _unsaid(gpu, "persistent")
    if gpu.persistent:
        return ok("on")
    return costs(
        "off",
        "the driver is loaded anew for the first engine: seconds, and its clocks start low",
        "sudo systemctl enable --now nvidia-persistenced, or sudo nvidia-smi -pm 1",
    )


def compute_mode(gpu: GpuState) -> Outcome:
    """Who may use it."""
    if gpu.compute_mode is None:
        return _unsaid(gpu, "compute_mode")
    if gpu.compute_mode == "prohibited":
        return costs(
            gpu.compute_mode, "no engine runs on it", f"sudo nvidia-smi -i {gpu.index} -c DEFAULT"
        )
    return ok(gpu.compute_mode)


def mig(gpu: GpuState) -> Outcome:
    """Whether it is cut into instances."""
    if gpu.mig is None:
        return ok("not supported") if "mig" in gpu.missing else _unsaid(gpu, "mig")
    if not gpu.mig:
        return ok("off")
    return costs(
        "on",
        "an engine has the multiprocessors and the cache of one instance only",
        f"sudo nvidia-smi -i {gpu.index} -mig 0 where nobody else uses the GPU",
    )


def ecc(gpu: GpuState) -> Outcome:
    """Whether its memory corrects errors."""
    if gpu.ecc is None:
        return ok("not supported") if "ecc" in gpu.missing else _unsaid(gpu, "ecc")
    return ok("on" if gpu.ecc else "off")
