"""A user's own feature column: a Numba function in a user's file, called by its address.

    # my_columns.py
    from numba import njit

    @njit
    def skew(bid_ticks, bid_qtys, ask_ticks, ask_qtys, state, params):
        return bid_qtys[:5].sum() - ask_qtys[:5].sum()

and in the spec file ``kind = "user"``, ``file = "my_columns.py"``, ``function = "skew"``.

The function is called once a row, inside the loop, with the best levels (int64 ticks and float64
quantities, best first, as many as the book has up to the column's `depth`), `state` (float64[16],
kept between the stream's rows, zero after a reset) and `params` (float64[16], from the spec, the
rest 0). It returns one finite number. Its arrays are the loop's own: write only `state`.

`column_address` compiles it behind a C function ``int64 f(int64 ticks, int64 qtys, int64 block)``,
so the loop calls it through an address and is never compiled anew. The function is tried once on a
made-up book first, so that most mistakes are found before the session starts. If it raises or
returns NaN or infinity later, `make_row` returns ``COLUMN_NOT_FINITE``.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import types

from tickrt.compile.jit import JIT
from tickrt.errors import SpecError
from tickrt.feature import kernels as k_
from tickrt.feature.spec import Column

__all__ = ["ARGUMENTS", "column_address"]

ARGUMENTS = ("bid_ticks", "bid_qtys", "ask_ticks", "ask_qtys", "state", "params")

# Callbacks live as long as the process: a running loop may hold their addresses.
_callbacks: dict[tuple[str, str, str], tuple[int, Any]] = {}

_LEVELS, _BLOCK = k_.MAX_LEVELS, k_.BLOCK_SIZE
_RESULT, _N_BID, _N_ASK = k_.RESULT, k_.N_BID, k_.N_ASK
_STATE, _PARAMS, _STATE_SIZE = k_.STATE, k_.PARAMS, k_.STATE_SIZE


def column_address(column: Column, where: str) -> int:
    """The address of the C function that runs a user's column.

    Args:
        column: of kind ``user``.
        where: put in front of error messages: the spec file and the column's path in it.

    Raises:
        SpecError: the file does not run, has no such function, or the function is not compiled by
            Numba, takes other arguments, raises, or returns something that is not a finite number.
    """
    assert column.file is not None
    key = (str(column.file.resolve()), column.digest, column.function)
    if key not in _callbacks:
        function = _function(column.file, column.function, where)
        address, keep = (_compiled if JIT else _interpreted)(function, where)
        _try(address, column, where)
        _callbacks[key] = (address, keep)
    return _callbacks[key][0]


def _module(path: Path, where: str) -> ModuleType:
    name = f"tickrt_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{where}.file: {path}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SpecError(f"{where}.file: {path}: {type(error).__name__}: {error}") from error
    return module


def _function(path: Path, name: str, where: str) -> Callable[..., Any]:
    function = getattr(_module(path, where), name, None)
    if function is None:
        raise SpecError(f"{where}.function: {path} has no function {name!r}")
    compiled = isinstance(function, numba.core.registry.CPUDispatcher)
    if not compiled and (JIT or not inspect.isfunction(function)):
        raise SpecError(
            f"{where}.function: {name} in {path} is not compiled: put @numba.njit above it"
        )
    got = tuple(inspect.signature(function.py_func if compiled else function).parameters)
    if len(got) != len(ARGUMENTS):
        raise SpecError(
            f"{where}.function: {name} in {path} takes ({', '.join(got)}); "
            f"expected the {len(ARGUMENTS)} arguments ({', '.join(ARGUMENTS)})"
        )
    result: Callable[..., Any] = function
    return result


def _compiled(function: Callable[..., Any], where: str) -> tuple[int, Any]:
    pointer = types.CPointer
    signature = types.int64(pointer(types.int64), pointer(types.float64), pointer(types.float64))

    def call(ticks_at, qtys_at, block_at):  # type: ignore[no-untyped-def]
        ticks = numba.carray(ticks_at, (2, _LEVELS))
        qtys = numba.carray(qtys_at, (2, _LEVELS))
        block = numba.carray(block_at, (_BLOCK,))
        n_bid, n_ask = int(block[_N_BID]), int(block[_N_ASK])
        state = block[_STATE : _STATE + _STATE_SIZE]
        block[_RESULT] = function(
            ticks[0, :n_bid],
            qtys[0, :n_bid],
            ticks[1, :n_ask],
            qtys[1, :n_ask],
            state,
            block[_PARAMS:_BLOCK],
        )
        return 0

    try:
        callback = numba.cfunc(signature)(call)
    except numba.core.errors.NumbaError as error:
        reason = str(error).strip()
        raise SpecError(
            f"{where}.function: Numba cannot compile it for ({', '.join(ARGUMENTS)}), "
            f"int64 and float64 arrays, returning a number:\n{reason}"
        ) from error
    return int(callback.address), callback


def _interpreted(function: Callable[..., Any], where: str) -> tuple[int, Any]:
    """The same under ``NUMBA_DISABLE_JIT=1``."""
    longs = ctypes.POINTER(ctypes.c_int64)
    doubles = ctypes.POINTER(ctypes.c_double)

    def call(ticks_at: Any, qtys_at: Any, block_at: Any) -> int:
        ticks = np.ctypeslib.as_array(ticks_at, (2, _LEVELS))
        qtys = np.ctypeslib.as_array(qtys_at, (2, _LEVELS))
        block = np.ctypeslib.as_array(block_at, (_BLOCK,))
        n_bid, n_ask = int(block[_N_BID]), int(block[_N_ASK])
        block[_RESULT] = function(
            ticks[0, :n_bid],
            qtys[0, :n_bid],
            ticks[1, :n_ask],
            qtys[1, :n_ask],
            block[_STATE : _STATE + _STATE_SIZE],
            block[_PARAMS:],
        )
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int64, longs, doubles, doubles)(call)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    return address, callback


def _try(address: int, column: Column, where: str) -> None:
    """Call the column on a made-up book of `depth` levels a side."""
    ticks = np.zeros((2, _LEVELS), np.int64)
    ticks[0] = 1000 - np.arange(_LEVELS)
    ticks[1] = 1001 + np.arange(_LEVELS)
    qtys = np.ones((2, _LEVELS))
    block = np.zeros(_BLOCK)
    block[_RESULT], block[_N_BID], block[_N_ASK] = np.nan, column.depth, column.depth
    block[_PARAMS : _PARAMS + len(column.params)] = column.params
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
    raised: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, raised.append
    try:
        prototype(address)(ticks.ctypes.data, qtys.ctypes.data, block.ctypes.data)
    finally:
        sys.unraisablehook = hook
    got = f"returned {block[_RESULT]}"
    if raised:
        got = f"raised {raised[0].exc_type.__name__}: {raised[0].exc_value}"
    if raised or not math.isfinite(block[_RESULT]):
        raise SpecError(
            f"{where}.function: {column.function} in {column.file}, tried on a book of "
            f"{column.depth} levels of quantity 1, {got}; expected a finite number"
        )
