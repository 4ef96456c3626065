"""A process that owns a host, to be killed: ``spare``, ``serving`` or ``loading``.

Prints the host's pid.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from helpers.window_kernel import KERNELS, parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide

if __name__ == "__main__":
    host = HostProcess(kernels=KERNELS)
    if sys.argv[1] == "loading":
        print(host.pid, flush=True)
    if sys.argv[1] != "spare":
        rows = np.zeros((8, 3), np.float32)
        side = LoopSide(RowRing(rows.ctypes.data, 4, 3), 3)
        facts = {"load_s": 600.0} if sys.argv[1] == "loading" else {}
        host.load(parcel(4, 3, **facts), side.layout, (side.rows, side.host), side.box)
        host.start()
    print(host.pid, flush=True)
    time.sleep(600)
