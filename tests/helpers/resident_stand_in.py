"""A host's kernel in place of `resident`: it runs the program of a bundle in NumPy, not its cubin.

`hosts(monkeypatch)` has every host of a test use it; with ``wrong`` its answers are a little off.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from helpers.watching_kernel import Watching, warm
from tickrt.backends import Probe
from tickrt.host import process
from tickrt.host.kernels.resident import FORMAT, _unpack

__all__ = ["WRONG", "Wrong", "hosts", "load", "warm"]

WRONG = "helpers.resident_stand_in:Wrong"


def load(payloads: Any, facts: Any, kind: Any = Watching) -> Watching:
    """The kernel's payload has to be whole, and is what a GPU would load."""
    kernel, arrays, cubin = _unpack(payloads[facts["engines"]["full"]])
    assert kernel["architecture"] == "sm_90a"
    assert cubin[:4] == b"\x7fELF"
    assert all(np.isfinite(array).all() for array in arrays)
    program = bytes(payloads["full.resident"]).split(b"\n", 2)[2]
    made: Watching = kind(program, facts)
    return made


class _OffByALittle(Watching):
    def answer(self, seq: int, rows: np.ndarray, out: np.ndarray) -> None:
        super().answer(seq, rows, out)
        out += np.float32(1e-4)


class Wrong:
    """As the module, with answers that are not the program's."""

    warm = staticmethod(warm)
    load = staticmethod(partial(load, kind=_OffByALittle))


def hosts(
    monkeypatch: pytest.MonkeyPatch, where: str = "helpers.resident_stand_in", builds: str = ""
) -> None:
    """Hosts of the `resident` backend run it, and the backend says that it can run here.

    Args:
        builds: why it cannot build here.
    """
    from tickrt.runtime.backends import resident

    standing_in = partial(process.HostProcess, kernels={FORMAT: where})
    monkeypatch.setattr(process, "HostProcess", standing_in)
    monkeypatch.setattr(resident, "probe", lambda targets=(): Probe(builds=builds))
