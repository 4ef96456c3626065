"""From the GPU to the host: outputs handed over with the number of their launch.

Entry points: `Answer`, for whatever computes outputs in a recorded graph; `Memory`, what a model's
graphs are bound to.

The last node of a graph that answers is a kernel of ours: it copies the outputs from the GPU's
memory into pinned memory and then stamps them with the number of this launch, which it counts
itself. So what an earlier launch left behind is never taken for this one's, whatever becomes of it.

Known limits: the kernel is PTX, which the driver compiles at load. Where it comes without its
compiler, a copy takes the kernel's place and the end of the stream that of the stamp.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import HostError
from tickrt.host.cuda import CudaError, Device, Pinned

__all__ = ["Answer", "Memory", "wait_for"]

_LOOKS = 2000  # at the stamp between two looks at the GPU's state
_ANSWER_S = 5.0
_THREADS = 32  # of the kernel that hands the outputs over
_VALUES = 64  # bytes from the stamp to the outputs
# Copies the outputs to where the host looks, and then the number of this launch.
_HAND_OVER = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry hand_over(.param .align 8 .b8 given[40])
{
    .reg .pred %p<3>;
    .reg .b32 %r<5>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [given];
    ld.param.u64 %rd2, [given+8];
    ld.param.u64 %rd3, [given+16];
    ld.param.u64 %rd4, [given+24];
    ld.param.u32 %r1, [given+32];
    mov.u32 %r2, %tid.x;
copy:
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra done;
    mul.wide.u32 %rd5, %r2, 4;
    add.s64 %rd6, %rd1, %rd5;
    add.s64 %rd7, %rd2, %rd5;
    ld.global.u32 %r3, [%rd6];
    st.volatile.global.u32 [%rd7], %r3;
    add.u32 %r2, %r2, 32;
    bra copy;
done:
    membar.sys;
    bar.sync 0;
    mov.u32 %r2, %tid.x;
    setp.ne.u32 %p2, %r2, 0;
    @%p2 bra end;
    ld.global.u32 %r4, [%rd4];
    add.u32 %r4, %r4, 1;
    st.global.u32 [%rd4], %r4;
    membar.sys;
    st.volatile.global.u32 [%rd3], %r4;
end:
    ret;
}
\0"""


class Memory:
    """What a model's plans are bound to: by the name of the tensor, allocated once."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._addresses: list[int] = []
        self._pinned: list[Pinned] = []

    def on_gpu(self, size: int) -> int:
        """That many bytes, zero."""
        address = self._device.allocate(size)
        self._addresses.append(address)
        self._device.fill(address, 0, max(size, 16) // 4)
        return address

    def shared(self, size: int) -> Pinned:
        """That many bytes that both sides see."""
        self._pinned.append(self._device.pinned(size))
        return self._pinned[-1]

    def upload(self, values: NDArray[Any]) -> int:
        """A copy in the GPU's memory."""
        self._addresses.append(self._device.upload(values))
        return self._addresses[-1]

    def close(self) -> None:
        """Give everything back."""
        while self._addresses:
            self._device.free(self._addresses.pop())
        while self._pinned:
            self._pinned.pop().close()


class Answer:
    """Outputs on their way to the host.

    Args:
        device: the GPU.
        memory: gives the buffers, and takes them back.
        outputs: float32 of an answer.

    Attributes:
        output: where the graph has to leave the outputs.
        stamped: the kernel stamps them; else the stream's end is looked for.
        launches: of graphs that answer, so far.
    """

    def __init__(self, device: Device, memory: Memory, outputs: int) -> None:
        self._device, self._outputs = device, outputs
        self.output = memory.on_gpu(4 * outputs)
        self._counter = memory.on_gpu(4)
        self._pinned = memory.shared(_VALUES + 4 * outputs)
        self._stamp = self._pinned.view[:4].data.cast("B").cast("I")
        self.values = self._pinned.view[_VALUES : _VALUES + 4 * outputs].view(np.float32)
        self.launches = 0
        self._module: Any = None
        try:
            self._module = device.load(_HAND_OVER)
        except CudaError:  # this driver comes without its compiler
            return
        self._function = self._module.function("hand_over")

    @property
    def stamped(self) -> bool:
        """Whether a stamp says that the outputs are there."""
        return self._module is not None

    def launch(self) -> None:
        """The last node: after what was launched before, or recorded with it."""
        if self._module is None:
            target = self._pinned.address + _VALUES
            self._device.copy_out(target, self.output, 4 * self._outputs)
            return
        answer = self._pinned.device
        arguments = struct.pack(
            "<4QI4x",
            *(self.output, answer + _VALUES, answer, self._counter),
            self._outputs,
        )
        self._device.launch(self._function, 1, _THREADS, 0, arguments)

    def launched(self) -> None:
        """Its graph was launched once more."""
        self.launches = (self.launches + 1) & 0xFFFFFFFF

    def check(self) -> None:
        """Raises HostError: the last launch has ended and its stamp is not there."""
        if self.stamped and self._stamp[0] != self.launches:
            raise HostError(f"launch {self.launches} ended with the stamp {self._stamp[0]}")

    def wait(self) -> None:
        """Return when the outputs of the last launch are in `values`.

        Raises:
            HostError: they do not come, or the GPU failed; says which.
        """
        if self._module is None:
            wait_for(self._device)
            return
        stamp, wanted, until = self._stamp, self.launches, 0.0
        while True:
            for _ in range(_LOOKS):
                if stamp[0] == wanted:
                    return
            ended = self._device.finished()  # raises where it has failed
            if stamp[0] == wanted:
                return
            now = time.monotonic()
            until = until or now + _ANSWER_S
            if ended or now > until:
                what = "ended without an answer" if ended else f"gave none for {_ANSWER_S:g} s"
                raise HostError(f"launch {wanted} {what}: its stamp is {stamp[0]}")

    def close(self) -> None:
        """Unload the kernel."""
        if self._module is not None:
            self._module.close()
            self._module = None


def wait_for(device: Device) -> None:
    """Spin until the stream has ended. Raises HostError: it failed, or does not end."""
    until = time.monotonic() + _ANSWER_S
    while not device.finished():
        if time.monotonic() > until:
            raise HostError(f"a graph does not end within {_ANSWER_S:g} s")
