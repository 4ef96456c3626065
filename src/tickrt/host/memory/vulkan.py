"""GPU memory that the CPU stores into, through Vulkan: a mailbox's row memory.

Entry points: `probe`, `allocate`, `attach`, as `registry` calls them. The process that stores rows
allocates; the host, which runs CUDA, imports the file descriptor. Vulkan only maps memory here: it
costs nothing per row.

The mapping is write-combining: stores are quick, reads take a microsecond and are never needed.

Known limits: Linux on x86-64 or ARM64, and a driver that lets the CPU see the card's memory.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from tickrt.errors import HostError
from tickrt.host.memory.registry import Allocated, Attached

__all__ = ["VulkanError", "allocate", "attach", "probe", "rounded"]

_KIND = "vulkan"

_NVIDIA = 0x10DE
# VkStructureType
_APPLICATION, _INSTANCE, _QUEUE, _DEVICE, _ALLOCATE = 0, 1, 2, 3, 5
_EXPORT, _GET_FD = 1000072002, 1000074002
_OPAQUE_FD = 1  # VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
_WANTED = 0x1 | 0x2 | 0x4  # DEVICE_LOCAL, HOST_VISIBLE, HOST_COHERENT
_VERSION_1_1 = (1 << 22) | (1 << 12)
_Pointer = ctypes.c_void_p


class VulkanError(HostError):
    """There is no GPU memory that the CPU can store into; says why."""


class _Application(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_uint),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint),
        ("api", ctypes.c_uint),
    ]


class _Create(ctypes.Structure):
    """VkInstanceCreateInfo."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("flags", ctypes.c_uint),
        ("application", _Pointer),
        ("layers", ctypes.c_uint),
        ("layer_names", _Pointer),
        ("extensions", ctypes.c_uint),
        ("extension_names", _Pointer),
    ]


class _Queue(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("flags", ctypes.c_uint),
        ("family", ctypes.c_uint),
        ("count", ctypes.c_uint),
        ("priorities", _Pointer),
    ]


class _DeviceCreate(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("flags", ctypes.c_uint),
        ("queues", ctypes.c_uint),
        ("queue_infos", _Pointer),
        ("layers", ctypes.c_uint),
        ("layer_names", _Pointer),
        ("extensions", ctypes.c_uint),
        ("extension_names", _Pointer),
        ("features", _Pointer),
    ]


class _Memory(ctypes.Structure):
    """VkPhysicalDeviceMemoryProperties."""

    _fields_ = [
        ("types", ctypes.c_uint),
        ("type", (ctypes.c_uint * 2) * 32),  # flags, heap
        ("heaps", ctypes.c_uint),
        ("heap", (ctypes.c_ulonglong * 2) * 16),
    ]


class _Export(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("next", _Pointer), ("handles", ctypes.c_uint)]


class _Allocate(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("size", ctypes.c_ulonglong),
        ("index", ctypes.c_uint),
    ]


class _GetFd(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("memory", ctypes.c_ulonglong),
        ("handle", ctypes.c_uint),
    ]


class _Vulkan:
    """Checked calls."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libvulkan.so.1")
        except OSError as error:
            raise VulkanError(f"no Vulkan loader here: {error}") from error

    def call(self, name: str, *arguments: Any) -> None:
        function = getattr(self.library, name)
        function.restype = ctypes.c_int
        code = int(function(*arguments))
        if code:
            raise VulkanError(f"{name}: VkResult {code}")

    def do(self, name: str, *arguments: Any) -> None:
        function = getattr(self.library, name)
        function.restype = None
        function(*arguments)


def _instance(vk: _Vulkan) -> _Pointer:
    application = _Application(type=_APPLICATION, name=b"tickrt", api=_VERSION_1_1)
    create = _Create(type=_INSTANCE, application=ctypes.addressof(application))
    instance = _Pointer()
    vk.call("vkCreateInstance", ctypes.byref(create), None, ctypes.byref(instance))
    return instance


def _card(vk: _Vulkan, instance: _Pointer, index: int) -> tuple[_Pointer, str]:
    """NVIDIA's card number `index` and its name."""
    count = ctypes.c_uint(16)
    cards = (_Pointer * 16)()
    vk.call("vkEnumeratePhysicalDevices", instance, ctypes.byref(count), cards)
    found = []
    for card in cards[: count.value]:
        properties = (ctypes.c_ubyte * 1024)()  # VkPhysicalDeviceProperties has 824
        vk.do("vkGetPhysicalDeviceProperties", _Pointer(card), properties)
        vendor = int.from_bytes(bytes(properties[8:12]), "little")
        if vendor == _NVIDIA:
            name = bytes(properties[20:276]).split(b"\0")[0].decode()
            found.append((_Pointer(card), name))
    if index >= len(found):
        raise VulkanError(
            f"Vulkan sees {len(found)} NVIDIA cards, number {index} was asked for: is the driver's "
            "file nvidia_icd.json where the loader looks (VK_DRIVER_FILES)?"
        )
    return found[index]


def _memory_type(vk: _Vulkan, card: _Pointer) -> int:
    memory = _Memory()
    vk.do("vkGetPhysicalDeviceMemoryProperties", card, ctypes.byref(memory))
    for number in range(memory.types):
        if memory.type[number][0] & _WANTED == _WANTED:
            return number
    raise VulkanError("the card has no memory that the CPU can store into (no resizable BAR?)")


def _device(vk: _Vulkan, card: _Pointer) -> _Pointer:
    priority = ctypes.c_float(1.0)
    queue = _Queue(type=_QUEUE, count=1, priorities=ctypes.addressof(priority))
    names = (ctypes.c_char_p * 1)(b"VK_KHR_external_memory_fd")
    create = _DeviceCreate(
        type=_DEVICE,
        queues=1,
        queue_infos=ctypes.addressof(queue),
        extensions=1,
        extension_names=ctypes.addressof(names),
    )
    device = _Pointer()
    vk.call("vkCreateDevice", card, ctypes.byref(create), None, ctypes.byref(device))
    return device


def rounded(size: int) -> int:
    """What is allocated for `size` bytes."""
    return (size + 0xFFFF) // 0x10000 * 0x10000


@cache
def probe() -> str:
    """Whether the first NVIDIA card's memory can be mapped: tried once, with a page of it."""
    try:
        allocate(4096).close()
    except VulkanError as error:
        return str(error)
    return ""


@cache
def _opened(index: int) -> tuple[_Vulkan, _Pointer, int]:
    """(Vulkan, a device on that card, the type of its memory), once per process: the driver leaves
    file descriptors behind with each device that is closed."""
    vk = _Vulkan()
    card, _ = _card(vk, _instance(vk), index)
    return vk, _device(vk, card), _memory_type(vk, card)


def allocate(size: int, index: int = 0) -> Allocated:
    """`size` bytes of GPU number `index` that this process stores into.

    Raises:
        VulkanError: it cannot be had here; says why.
    """
    vk, device, kind = _opened(index)
    size = rounded(size)
    export = _Export(type=_EXPORT, handles=_OPAQUE_FD)
    wanted = _Allocate(type=_ALLOCATE, next=ctypes.addressof(export), size=size, index=kind)
    memory = ctypes.c_ulonglong()
    vk.call("vkAllocateMemory", device, ctypes.byref(wanted), None, ctypes.byref(memory))
    address = _Pointer()
    vk.call(
        "vkMapMemory",
        *(device, memory, ctypes.c_ulonglong(0), ctypes.c_ulonglong(2**64 - 1), 0),
        ctypes.byref(address),
    )
    vk.library.vkGetDeviceProcAddr.restype = _Pointer
    found = vk.library.vkGetDeviceProcAddr(device, b"vkGetMemoryFdKHR")
    if not found or not address.value:
        raise VulkanError("the driver does not export memory (VK_KHR_external_memory_fd)")
    get = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer)(found)
    asked = _GetFd(type=_GET_FD, memory=memory.value, handle=_OPAQUE_FD)
    fd = ctypes.c_int(-1)
    code = get(device.value, ctypes.addressof(asked), ctypes.addressof(fd))
    if code:
        raise VulkanError(f"vkGetMemoryFdKHR: VkResult {code}")

    def release() -> None:
        vk.do("vkUnmapMemory", device, memory)
        vk.do("vkFreeMemory", device, memory, None)
        os.close(fd.value)

    ctypes.memset(address.value, 0, size)
    return Allocated(_KIND, int(address.value), size, fd.value, release)


def attach(fd: int, size: int) -> Attached:
    """A descriptor of the host's own: a kernel imports it into CUDA (`rounded` bytes)."""
    own = os.dup(fd)
    return Attached(_KIND, None, own, lambda: os.close(own))
