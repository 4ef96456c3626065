"""What Numba does not offer: the CPU's clock, calls through an address, ordered loads and stores.

Each name works in compiled kernels and, under ``NUMBA_DISABLE_JIT=1``, as plain Python with the
same result (the clock then counts nanoseconds). Addresses are int64.

- `clock()` → CPU time-stamp counter; see `observe.clock` for its frequency.
- `call0(f)`, `call1(f, a)` … `call4(f, a, b, c, d)`, `call8(f, a, …, h)` → int64: call a C function
  `int64 f(int64, …)`.
- `call_order(f, a, b, c, x, y, d, e, g)` → int64: call a C function
  `int64 f(int64, int64, int64, double, double, uint8, uint8, bool)`.
- `load_acquire(address)`, `store_release(address, value)`: an int64 shared with another thread or
  process; what was written before the store is visible after the load.
- `load_f32(address)`, `load_f64(address)`, `load_i64(address)`, `store_i64(address, value)`: plain
  memory access.
- `trailing_zeros(word)`, `leading_zeros(word)`: of a uint64 that is not zero; `ones(word)`:
  how many bits of a uint64 are set.
- `pause()`: the spin-wait hint.
- `prefetch_read(address)`, `prefetch_write(address)`: fetch the cache line there, to read or write
  it soon; never fault.
"""

from __future__ import annotations

import ctypes
import platform
import time

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tickrt.compile.jit import JIT

__all__ = [
    "call0",
    "call1",
    "call2",
    "call3",
    "call4",
    "call8",
    "call_order",
    "clock",
    "copy_piece",
    "leading_zeros",
    "load_acquire",
    "load_f32",
    "load_f64",
    "load_i64",
    "ones",
    "pause",
    "prefetch_read",
    "prefetch_write",
    "store_fence",
    "store_i64",
    "store_release",
    "trailing_zeros",
]

_I64 = ir.IntType(64)


def _call(count):
    """An intrinsic that calls a C function of `count` int64 arguments by its address."""

    def codegen(_context, builder, signature, args):
        function = ir.FunctionType(_I64, [_I64] * count)
        pointer = builder.inttoptr(args[0], function.as_pointer())
        return builder.call(pointer, list(args[1:]))

    result = types.int64
    if count == 0:

        def call(typingctx, address):
            return result(types.int64), codegen
    elif count == 1:

        def call(typingctx, address, a):
            return result(types.int64, types.int64), codegen
    elif count == 2:

        def call(typingctx, address, a, b):
            return result(types.int64, types.int64, types.int64), codegen
    elif count == 3:

        def call(typingctx, address, a, b, c):
            return result(*[types.int64] * 4), codegen
    elif count == 4:

        def call(typingctx, address, a, b, c, d):
            return result(*[types.int64] * 5), codegen
    else:

        def call(typingctx, address, a, b, c, d, e, f, g, h):
            return result(*[types.int64] * 9), codegen

    call.__name__ = call.__qualname__ = f"call{count}"
    return intrinsic(call)


if JIT:
    call0, call1, call2, call3, call8 = _call(0), _call(1), _call(2), _call(3), _call(8)
    call4 = _call(4)

    @intrinsic
    def call_order(typingctx, address, a, b, c, x, y, d, e, g):
        def codegen(_context, builder, _signature, args):
            f64, byte, bit = ir.DoubleType(), ir.IntType(8), ir.IntType(1)
            function = ir.FunctionType(_I64, [_I64, _I64, _I64, f64, f64, byte, byte, bit])
            values = list(args[1:])
            for i, small in ((5, byte), (6, byte), (7, bit)):
                values[i] = builder.trunc(values[i], small)
            pointer = builder.inttoptr(args[0], function.as_pointer())
            widened = {i: ("zeroext",) for i in (5, 6, 7)}  # as C callers do
            return builder.call(pointer, values, arg_attrs=widened)

        whole, real = types.int64, types.float64
        signature = whole(whole, whole, whole, whole, real, real, whole, whole, whole)
        return signature, codegen

    @intrinsic
    def clock(typingctx):
        def codegen(_context, builder, _signature, _args):
            module = builder.module
            name = "llvm.readcyclecounter"
            function = module.globals.get(name) or ir.Function(
                module, ir.FunctionType(_I64, []), name
            )
            return builder.call(function, [])

        return types.int64(), codegen

    @intrinsic
    def pause(typingctx):
        def codegen(context, builder, _signature, _args):
            if platform.machine() in ("x86_64", "AMD64"):
                module, name = builder.module, "llvm.x86.sse2.pause"
                function = module.globals.get(name) or ir.Function(
                    module, ir.FunctionType(ir.VoidType(), []), name
                )
                builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def store_fence(typingctx):
        def codegen(context, builder, _signature, _args):
            if platform.machine() in ("x86_64", "AMD64"):  # orders write-combining stores, too
                module, name = builder.module, "llvm.x86.sse.sfence"
                function = module.globals.get(name) or ir.Function(
                    module, ir.FunctionType(ir.VoidType(), []), name
                )
                builder.call(function, [])
            else:
                builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def copy_piece(typingctx, source, target, empty, other):
        """Sixteen bytes in one store; words that equal `empty` become `other`."""

        def codegen(context, builder, _signature, args):
            word, four = ir.IntType(32), ir.VectorType(ir.IntType(32), 4)
            here, there = (builder.inttoptr(a, four.as_pointer()) for a in args[:2])
            found = builder.load(here)
            found.align = 4
            pair = []
            for value in args[2:]:
                vector = ir.Constant(four, ir.Undefined)
                for lane in range(4):
                    place = ir.Constant(word, lane)
                    vector = builder.insert_element(vector, builder.trunc(value, word), place)
                pair.append(vector)
            same = builder.icmp_signed("==", found, pair[0])
            builder.store(builder.select(same, pair[1], found), there).align = 16
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    def _prefetch(to_write):
        @intrinsic
        def prefetch(typingctx, address):
            def codegen(context, builder, _signature, args):
                module, name = builder.module, "llvm.prefetch.p0i8"
                byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
                function = module.globals.get(name) or ir.Function(module, kind, name)
                how = [ir.Constant(word, number) for number in (to_write, 3, 1)]  # keep it; data
                builder.call(function, [builder.inttoptr(args[0], byte), *how])
                return context.get_dummy_value()

            return types.void(types.int64), codegen

        return prefetch

    prefetch_read, prefetch_write = _prefetch(0), _prefetch(1)

    @intrinsic
    def load_acquire(typingctx, address):
        def codegen(_context, builder, _signature, args):
            pointer = builder.inttoptr(args[0], _I64.as_pointer())
            return builder.load_atomic(pointer, "acquire", 8)

        return types.int64(types.int64), codegen

    @intrinsic
    def store_release(typingctx, address, value):
        def codegen(context, builder, _signature, args):
            pointer = builder.inttoptr(args[0], _I64.as_pointer())
            builder.store_atomic(args[1], pointer, "release", 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    @intrinsic
    def load_i64(typingctx, address):
        def codegen(_context, builder, _signature, args):
            return builder.load(builder.inttoptr(args[0], _I64.as_pointer()))

        return types.int64(types.int64), codegen

    @intrinsic
    def store_i64(typingctx, address, value):
        def codegen(context, builder, _signature, args):
            builder.store(args[1], builder.inttoptr(args[0], _I64.as_pointer()))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    @intrinsic
    def load_f32(typingctx, address):
        def codegen(_context, builder, _signature, args):
            return builder.load(builder.inttoptr(args[0], ir.FloatType().as_pointer()))

        return types.float32(types.int64), codegen

    @intrinsic
    def load_f64(typingctx, address):
        def codegen(_context, builder, _signature, args):
            return builder.load(builder.inttoptr(args[0], ir.DoubleType().as_pointer()))

        return types.float64(types.int64), codegen

    @intrinsic
    def trailing_zeros(typingctx, word):
        def codegen(_context, builder, _signature, args):
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), codegen

    @intrinsic
    def ones(typingctx, word):
        def codegen(_context, builder, _signature, args):
            return builder.ctpop(args[0])

        return types.int64(types.uint64), codegen

    @intrinsic
    def leading_zeros(typingctx, word):
        def codegen(_context, builder, _signature, args):
            return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), codegen

else:

    def _plain_call(count):
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * count)

        def call(address, *args):
            return prototype(int(address))(*(int(a) for a in args))

        return call

    call0, call1, call2, call3, call8 = (_plain_call(count) for count in (0, 1, 2, 3, 8))
    call4 = _plain_call(4)
    _ORDER = ctypes.CFUNCTYPE(
        ctypes.c_int64, *[ctypes.c_int64] * 3, *[ctypes.c_double] * 2,
        ctypes.c_uint8, ctypes.c_uint8, ctypes.c_bool,
    )  # fmt: skip

    def call_order(address, a, b, c, x, y, d, e, g):
        return _ORDER(int(address))(
            int(a), int(b), int(c), float(x), float(y), int(d), int(e), bool(g)
        )

    clock = time.perf_counter_ns

    def pause():
        return None

    def store_fence():
        return None

    def copy_piece(source, target, empty, other):
        words = (ctypes.c_uint32 * 4).from_address(int(source))
        there = (ctypes.c_uint32 * 4).from_address(int(target))
        there[:] = [other if word == empty else word for word in words]

    def prefetch_read(address):
        return None

    prefetch_write = prefetch_read

    def load_i64(address):
        return ctypes.c_int64.from_address(int(address)).value

    def store_i64(address, value):
        ctypes.c_int64.from_address(int(address)).value = int(value)

    load_acquire, store_release = load_i64, store_i64

    def load_f32(address):
        return np.float32(ctypes.c_float.from_address(int(address)).value)

    def load_f64(address):
        return ctypes.c_double.from_address(int(address)).value

    def trailing_zeros(word):
        word = int(word)
        return (word & -word).bit_length() - 1

    def ones(word):
        return int(word).bit_count()

    def leading_zeros(word):
        return 64 - int(word).bit_length()
