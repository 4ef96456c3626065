"""An engine on a ring of rows of its own, and its handle's functions as kernels."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tickrt.compile.codes import PENDING
from tickrt.compile.intrinsics import call1, call2, call3, load_f32, load_i64, store_i64
from tickrt.compile.jit import kernel
from tickrt.runtime.backends.handle import Engine, RowRing

T = 4


@kernel
def do_submit(table, seq):
    return call3(table[0], table[4], seq, 1)


@kernel
def do_poll(table, seq):
    return call2(table[1], table[4], seq)


@kernel
def do_advance(table, seq):
    return call2(table[2], table[4], seq)


@kernel
def do_reset(table):
    return call1(table[3], table[4])


@kernel
def outputs(table):
    out = table[6]
    return load_f32(out), load_f32(out + 4), load_f32(out + 8)


@kernel
def stamp(table):
    return load_i64(table[7])


@kernel
def poison(table):
    store_i64(table[7], 0)


def await_poll(table, seq, seconds=20.0):
    """What `poll` says once it is not PENDING any more: an engine may be in another process."""
    end = time.monotonic() + seconds
    code = int(do_poll(table, seq))
    while code == PENDING and time.monotonic() < end:
        time.sleep(0)
        code = int(do_poll(table, seq))
    return code


class Bench:
    """An engine on a ring of rows of its own."""

    def __init__(self, make: Callable[[RowRing], Engine], width: int) -> None:
        self.rows = np.zeros((2 * T, width), np.float32)
        self.engine = make(RowRing(self.rows.ctypes.data, T, width))
        self.table = self.engine.handle()

    def write(self, seq: int, row: np.ndarray) -> None:
        self.rows[seq % T] = self.rows[seq % T + T] = row
