"""A resident kernel on this machine's GPU that serves rows; as a module, until it is killed.

Entry points: `Serving(name)`, `kernel_of`, `skip_without_gpu`;
``python -m helpers.resident_serving NAME`` prints the pid of its host, then serves.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from helpers.engine_bench import await_poll, do_advance, do_submit
from helpers.programs import MODELS, checked, program
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.resident.compile import build
from tickrt.errors import HostError
from tickrt.host.kernels.resident import FORMAT
from tickrt.host.memory import registry
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.resident import parcel_of, probe

__all__ = ["Serving", "kernel_of", "skip_without_gpu"]


def skip_without_gpu() -> None:
    """Skip the test where no resident kernel can be compiled or run; says why."""
    if why := probe().runs or probe().builds:
        pytest.skip(why)
    with HostProcess() as host:
        try:
            host.warm(FORMAT)
        except HostError as error:
            pytest.skip(str(error))


def kernel_of(model: LoopModel, memory: str) -> Parcel:
    made = program(model, "bank")
    assert made is not None
    built = build(made, one_poller=memory == registry.ORDINARY)
    return parcel_of("model", built, made)


class Serving:
    """An engine on the GPU, and the ring that its rows lie in."""

    def __init__(self, name: str) -> None:
        self.model = model = checked(MODELS[name]())
        memory = registry.choose(registry.AUTO)
        self.rows = np.zeros((2 * model.window, model.width), np.float32)
        ring = RowRing(self.rows.ctypes.data, model.window, model.width)
        parcel = kernel_of(model, memory)
        self.engine = MailboxEngine(
            "resident", model, ring, HostProcess(), parcel, memory, direct=True
        )
        self.table = self.engine.handle()
        self.seq = 0

    def feed(self, row: np.ndarray) -> int:
        """The code of this row's answer."""
        self.seq += 1
        slot = self.seq % self.model.window
        self.rows[slot] = self.rows[slot + self.model.window] = row
        code = int(do_submit(self.table, self.seq))
        code = code if code < 0 else int(await_poll(self.table, self.seq, 2.0))
        do_advance(self.table, self.seq)
        return code


if __name__ == "__main__":
    serving = Serving(sys.argv[1])
    print(serving.engine.host.pid, flush=True)
    while True:
        serving.feed(np.zeros(serving.model.width, np.float32))
