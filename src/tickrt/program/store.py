"""A program as bytes: a line of JSON and the values of its buffers.

Entry points: `to_bytes`, `from_bytes`. Nothing in it is code: reading it runs nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tickrt.errors import EngineError
from tickrt.program.check import check
from tickrt.program.ir import (
    Buffer,
    Contract,
    For,
    Instruction,
    Map,
    Move,
    Operation,
    Reduce,
    StreamProgram,
    View,
)

__all__ = ["from_bytes", "to_bytes"]

_MAGIC = b"tickrt-program 1\n"


def _view(view: View | None) -> Any:
    if view is None:
        return None
    moves = [[m.index, m.stride, m.shift, m.period] for m in view.moves]
    return [view.buffer, view.offset, list(view.strides), moves]


def _operation(op: Operation) -> dict[str, Any]:
    if isinstance(op, For):
        body = [_operation(inner) for inner in op.body]
        return {"for": op.index, "count": op.count, "body": body, "label": op.label}
    entry: dict[str, Any] = {"loops": list(op.loops), "label": op.label}
    if isinstance(op, Map):
        return {
            "map": [[i.function, *i.arguments] for i in op.body],
            "inputs": [_view(v) for v in op.inputs],
            "outputs": [_view(v) for v in op.outputs],
            "results": list(op.results),
            **entry,
        }
    entry.update(folds=list(op.folds), output=_view(op.output))
    if isinstance(op, Contract):
        return {"contract": [_view(op.a), _view(op.b)], "start": _view(op.start), **entry}
    return {"reduce": op.kind, "x": _view(op.x), **entry}


def to_bytes(program: StreamProgram) -> bytes:
    """The program as bytes."""
    buffers, blobs = [], []
    for buffer in program.buffers.values():
        start = None if buffer.start is None else np.ascontiguousarray(buffer.start, "<f4")
        buffers.append([buffer.name, buffer.size, buffer.kind, start is not None])
        if start is not None:
            blobs.append(start.tobytes())
    head = {
        "window": program.window,
        "width": program.width,
        "outputs": program.outputs,
        "warm": program.warm,
        "idle": program.idle,
        "facts": program.facts,
        "buffers": buffers,
        "sections": {n: [_operation(op) for op in ops] for n, ops in program.sections.items()},
    }
    return _MAGIC + json.dumps(head).encode() + b"\n" + b"".join(blobs)


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return value


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(_int(v) for v in values)


def _read_view(entry: Any) -> View:
    buffer, offset, strides, moves = entry
    return View(
        _text(buffer),
        _int(offset),
        _ints(strides),
        tuple(Move(_text(i), _int(s), _int(h), _int(p)) for i, s, h, p in moves),
    )


def _read_instruction(entry: Any) -> Instruction:
    function, *arguments = entry
    if function == "value":
        return Instruction("value", tuple(float(a) for a in arguments))
    return Instruction(_text(function), _ints(arguments))


def _read_operation(entry: dict[str, Any]) -> Operation:
    label = _text(entry["label"])
    if "for" in entry:
        body = tuple(_read_operation(inner) for inner in entry["body"])
        return For(_text(entry["for"]), _int(entry["count"]), body, label)
    loops = _ints(entry["loops"])
    if "map" in entry:
        return Map(
            loops,
            tuple(_read_view(v) for v in entry["inputs"]),
            tuple(_read_instruction(line) for line in entry["map"]),
            tuple(_read_view(v) for v in entry["outputs"]),
            _ints(entry["results"]),
            label,
        )
    folds, output = _ints(entry["folds"]), _read_view(entry["output"])
    if "contract" in entry:
        a, b = entry["contract"]
        start = None if entry["start"] is None else _read_view(entry["start"])
        return Contract(loops, folds, _read_view(a), _read_view(b), output, start, label)
    return Reduce(loops, folds, _text(entry["reduce"]), _read_view(entry["x"]), output, label)


def from_bytes(content: bytes) -> StreamProgram:
    """The program that `to_bytes` wrote.

    Raises:
        EngineError: it is not one, or not sound.
    """
    if not content.startswith(_MAGIC):
        raise EngineError("not a program of this version: build the engine again")
    try:
        program = _read(content)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise EngineError(f"the program is damaged: {error!r}: build the engine again") from error
    except ValueError as error:
        raise EngineError(f"the program is damaged: {error}: build the engine again") from error
    return check(program)


def _read(content: bytes) -> StreamProgram:
    end = content.find(b"\n", len(_MAGIC))
    head = json.loads(content[len(_MAGIC) : end])
    buffers: dict[str, Buffer] = {}
    at = end + 1
    for name, size, kind, has_start in head["buffers"]:
        start = None
        if has_start:
            start = np.frombuffer(content, "<f4", _int(size), at).astype(np.float32)
            at += 4 * size
        if name in buffers:
            raise ValueError(f"two buffers {name!r}")
        buffers[_text(name)] = Buffer(name, _int(size), _text(kind), start)
    if at != len(content):
        raise ValueError(f"it has {len(content)} bytes, its head describes {at}")
    return StreamProgram(
        window=_int(head["window"]),
        width=_int(head["width"]),
        outputs=_int(head["outputs"]),
        warm=_int(head["warm"]),
        idle=_int(head["idle"]),
        buffers=buffers,
        sections={
            name: tuple(_read_operation(op) for op in section)
            for name, section in head["sections"].items()
        },
        facts={key: _text(value) for key, value in head["facts"].items()},
    )
