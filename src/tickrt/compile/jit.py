"""How tickrt compiles: one decorator, one cache that can never be stale.

`kernel` is `numba.njit` with the project's settings: no GIL, no exceptions on division, cached on
disk; `c_function` makes a C function of int64 arguments that compiled code can call by its address.
Numba's own cache looks only at the file that holds the function, not at the files of the
functions that it calls; so the cache folder here is named after a digest of *all* of tickrt's
compiled source, and a changed callee can never be served from an old cache. Numba's own settings
are as they were after every call: code of others is cached where it was.

`JIT` is False under ``NUMBA_DISABLE_JIT=1``: then the same kernels run as plain Python.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import config, types

from tickrt import __version__
from tickrt.environment import compiled_folder

__all__ = [
    "JIT",
    "CFunction",
    "c_function",
    "compiled_dir",
    "inline_kernel",
    "kernel",
    "kernel_internal",
]

JIT = not config.DISABLE_JIT


@cache
def _digest() -> str:
    """SHA-256 over every compiled source file of the package and Numba's version."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(f"{__version__} {numba.__version__}".encode())
    others = (
        "memory/records.py",
        *(f"compile/{name}.py" for name in ("by_ref", "codes", "intrinsics", "jit")),
    )
    for path in sorted([*root.rglob("*kernels.py"), *(root / name for name in others)]):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiled_dir() -> Path:
    """Where the compiled kernels of this very source are kept."""
    return compiled_folder() / _digest()


@contextmanager
def _our_cache() -> Iterator[None]:
    """Numba reads its cache folder when a function is decorated; the setting is the process's."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(compiled_dir())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _compile(function: Callable[..., Any], **options: bool) -> Any:
    """Compile without reference counting (``_nrt``).

    Counting costs two atomic operations per array of a kernel's state at every call, four times
    what a book update costs. So kernels cannot allocate (Numba refuses to compile them) and must
    not return arrays, and the caller keeps every array alive.
    """
    with _our_cache():
        dispatcher = numba.njit(
            cache=True,
            nogil=True,
            error_model="numpy",
            no_cfunc_wrapper=True,
            _nrt=False,
            **options,
        )(function)
    if JIT:
        resolve = dispatcher.get_call_template

        def get_call_template(args: Any, kws: Any) -> Any:
            plain = {name: types.unliteral(kind) for name, kind in kws.items()}
            return resolve(tuple(types.unliteral(kind) for kind in args), plain)

        dispatcher.get_call_template = get_call_template
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call: no Python object, no GIL, cached on disk.

    Numba would compile a kernel anew for every constant that a caller passes (``Literal[int](3)``);
    here a constant counts as its type, which costs nothing once LLVM has inlined the call.
    """
    return _compile(function)


def inline_kernel(function: Callable[..., Any]) -> Any:
    """A `kernel` that LLVM inlines into every caller: for the few calls per event that count."""
    return _compile(function, forceinline=True)


def kernel_internal(function: Callable[..., Any]) -> Any:
    """A `kernel` that only other kernels call: it compiles in half the time.

    What it lacks is the entry for calls from Python (unpacking dozens of arrays is most of a small
    kernel's machine code); such a call works under ``NUMBA_DISABLE_JIT=1`` only.
    """
    return _compile(function, no_cpython_wrapper=True)


@dataclass(frozen=True)
class CFunction:
    """A C function made from Python source; `owner` must live as long as `address` is used."""

    address: int
    owner: Any


def c_function(function: Callable[..., int], arguments: int) -> CFunction:
    """Compile `function` of `arguments` int64 to a C function ``int64 f(int64, …)``.

    Without JIT it is a C callback into plain Python, with the same result.
    """
    if JIT:
        signature = f"int64({', '.join(['int64'] * arguments)})"
        with _our_cache():
            made = numba.cfunc(signature, cache=True, nopython=True, error_model="numpy")
            compiled = made(function)
        return CFunction(int(compiled.address), compiled)
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(function)
    return CFunction(int(ctypes.cast(callback, ctypes.c_void_p).value or 0), callback)
