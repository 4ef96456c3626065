"""No heap allocation between event and order: counted by a preloaded malloc, not believed."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from helpers.sessions import market_file
from tickrt.compile.by_ref import by_ref
from tickrt.compile.intrinsics import call0
from tickrt.compile.jit import kernel
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import FeedView
from tickrt.runtime.loop.loop_kernels import Pace, loop
from tickrt.runtime.results import counter

HERE = Path(__file__).parent


@kernel
def counted(feed, x, pace, allocations):
    """Heap allocations of this thread while the loop ran."""
    state, source, speed = by_ref(x), by_ref(feed), by_ref(pace)
    before = call0(allocations)
    loop(source, state, speed)
    return call0(allocations) - before


@numba.njit
def careless(n, allocations):
    """Not a kernel (those cannot even compile an allocation): to know that the counter counts."""
    before = call0(allocations)
    total = 0.0
    for i in range(n):
        total += np.zeros(i + 64).sum()
    return call0(allocations) - before + int(total)


def measure(folder: Path, backend: str) -> dict[str, int]:
    """Run in a process that has the counter preloaded."""
    from helpers.sessions import config, from_memory, on_many_symbols, settings
    from tickrt.strategy.params import MakerParams

    count = ctypes.CDLL(None).tickrt_allocations
    count.restype = ctypes.c_int64
    address = ctypes.cast(count, ctypes.c_void_p).value
    assert address is not None
    strategies = (settings(folder), settings(folder, policy=MakerParams()))
    made = config(folder, folder / "m.npz", *strategies, backend=backend)
    found = {"careless": int(careless(10, address))}
    shared = backend == "reference"
    with on_many_symbols(folder, 2, 1000) if shared else from_memory(made) as session:
        assert {engine.backend for engine in session.assembly.engines} == {backend}
        x = session.assembly.loop
        empty = FeedView(np.zeros(0, EVENT_DTYPE), session.feed.stamps[:0], *session.feed[2:])
        x.stop[1] = 1
        counted(empty, x, Pace(0, 0, 0, 0.0), address)  # compiles
        x.stop[1] = 0
        found["loop"] = int(counted(session.feed, x, Pace(0, 0, 0, 0.0), address))
        for name in ("batches", "orders", "cancels", "fills"):
            found[name] = counter(session.assembly, name)
    return found


@pytest.mark.parametrize("backend", ["null", "native", "reference"])
def test_the_loop_does_not_allocate(backend: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler to preload a counting malloc")
    shim = tmp_path / "allocations.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), str(HERE / "allocations.c")],
        check=True,
    )
    market_file(tmp_path / "m.npz", 2000)
    code = (
        "import sys, json; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path; from test_allocations import measure\n"
        "print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), backend, str(HERE)]
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["careless"] >= 10, "the counter does not count"
    assert found["batches"] == 2000
    assert min(found["orders"], found["cancels"], found["fills"]) > 0
    assert found["loop"] == 0
