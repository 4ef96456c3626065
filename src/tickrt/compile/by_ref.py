"""Passing a session's state to compiled functions by reference.

Numba passes a NamedTuple of arrays by value: a call with a hundred arrays copies seven kilobytes,
about a microsecond, and makes LLVM compile functions of a thousand arguments. `by_ref(x)` inside a
kernel stores the tuple once, in that kernel's frame, and gives a reference that costs one pointer
to pass. Attributes read the same as those of the tuple (`x.book.qty`), so a kernel does not know
which of the two it was given; under ``NUMBA_DISABLE_JIT=1`` the reference is the tuple.

A C function gets its state the same way, from an address: `Pinned(state)` keeps the tuple in memory
that stays, and `struct_at(example)` makes the function that turns its address into a reference.

Invariants: a reference must not outlive the kernel that made it (or the `Pinned`); its fields
cannot be rebound. Arrays read through it are borrowed: they cost no reference counting, since the
caller in Python holds them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model

from tickrt.compile.jit import JIT, kernel

__all__ = ["Pinned", "Ref", "by_ref", "struct_at"]

_POINTER = ir.IntType(8).as_pointer()
_ZERO = ir.Constant(ir.IntType(32), 0)


class Ref(types.Type):
    """The Numba type of a reference to a NamedTuple of type `target`."""

    def __init__(self, target: types.NamedTuple) -> None:
        self.target = target
        super().__init__(name=f"Ref({target})")


@register_model(Ref)
class _RefModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Ref) -> None:
        super().__init__(manager, kind, _POINTER)


@infer_getattr
class _RefAttributes(AttributeTemplate):
    key = Ref

    def generic_resolve(self, ref: Ref, name: str) -> types.Type | None:
        if name not in ref.target.fields:
            return None
        kind = ref.target[ref.target.fields.index(name)]
        return Ref(kind) if isinstance(kind, types.NamedTuple) else kind


def _field(context: Any, builder: Any, target: Any, pointer: Any, index: int) -> Any:
    struct = context.get_value_type(target)
    typed = builder.bitcast(pointer, struct.as_pointer())
    return builder.gep(typed, [_ZERO, ir.Constant(ir.IntType(32), index)], inbounds=True)


@lower_getattr_generic(Ref)
def _read(context: Any, builder: Any, ref: Ref, pointer: Any, name: str) -> Any:
    index = ref.target.fields.index(name)
    kind = ref.target[index]
    field = _field(context, builder, ref.target, pointer, index)
    if isinstance(kind, types.NamedTuple):
        return builder.bitcast(field, _POINTER)
    value = builder.load(field)
    if isinstance(kind, types.Array):  # borrowed: no owner to count references of
        for member in (0, 1):
            null = ir.Constant(value.type.elements[member], None)
            value = builder.insert_value(value, null, member)
    return value


def _store(context: Any, builder: Any, target: Any, pointer: Any, value: Any) -> None:
    for index, kind in enumerate(target):
        field = _field(context, builder, target, pointer, index)
        part = builder.extract_value(value, index)
        if isinstance(kind, types.NamedTuple):
            _store(context, builder, kind, field, part)
        else:
            builder.store(part, field)


@intrinsic
def _by_ref(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            slot = builder.alloca(context.get_value_type(value))
        _store(context, builder, value, slot, args[0])
        return builder.bitcast(slot, _POINTER)

    return Ref(value)(value), codegen


def _same(value: Any) -> Any:
    return value


by_ref = _by_ref if JIT else _same


@intrinsic
def _size_of(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        size = context.get_abi_sizeof(context.get_value_type(value))
        return ir.Constant(ir.IntType(64), size)

    return types.int64(value), codegen


@intrinsic
def _store_at(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _store(context, builder, value, builder.inttoptr(args[0], _POINTER), args[1])
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@kernel
def _size(value: Any) -> Any:
    return _size_of(value)


@kernel
def _pin(address: Any, value: Any) -> None:
    _store_at(address, value)


_PLAIN: dict[int, Any] = {}  # without JIT: what lies at the address of a Pinned


class Pinned:
    """A NamedTuple of arrays, kept where C functions find it.

    Args:
        state: the tuple; it and its arrays live as long as this object.

    Attributes:
        address: of the copy that compiled code reads; give it to a C function as its context.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        self._memory = np.zeros(int(_size(state)) // 8 + 1 if JIT else 1, np.int64)
        self.address = int(self._memory.ctypes.data)
        if JIT:
            _pin(self.address, state)
        else:
            _PLAIN[self.address] = state

    def close(self) -> None:
        """Forget it; its address must not be used any more."""
        _PLAIN.pop(self.address, None)


def struct_at(example: Callable[[], Any]) -> Any:
    """What turns the address of a `Pinned` into a reference, in compiled code.

    Args:
        example: makes a state of the same type, as small as it likes; called once, when the first
            function that uses it is compiled.
    """
    if not JIT:
        return lambda address: _PLAIN[int(address)]

    @intrinsic
    def at(typingctx: Any, address: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], _POINTER)

        return Ref(numba.typeof(example()))(types.int64), codegen

    return at
