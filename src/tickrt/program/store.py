"""A program as bytes: a line of JSON and the values of its buffers.

Entry points: `to_bytes`, `from_bytes`. Nothing in it is code: reading it runs nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tickrt.errors import EngineError
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
    check,
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


def _read_view(entry: Any) -> View:
    buffer, offset, strides, moves = entry
    return View(
        str(buffer),
        int(offset),
        tuple(int(s) for s in strides),
        tuple(Move(str(i), int(s), int(h), int(p)) for i, s, h, p in moves),
    )


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _read_operation(entry: dict[str, Any]) -> Operation:
    label = str(entry.get("label", ""))
    if "for" in entry:
        body = tuple(_read_operation(inner) for inner in entry["body"])
        return For(str(entry["for"]), int(entry["count"]), body, label)
    loops = _ints(entry["loops"])
    if "map" in entry:
        return Map(
            loops,
            tuple(_read_view(v) for v in entry["inputs"]),
            tuple(Instruction(str(f), tuple(args)) for f, *args in entry["map"]),
            tuple(_read_view(v) for v in entry["outputs"]),
            _ints(entry["results"]),
            label,
        )
    folds, output = _ints(entry["folds"]), _read_view(entry["output"])
    if "contract" in entry:
        a, b = entry["contract"]
        start = None if entry["start"] is None else _read_view(entry["start"])
        return Contract(loops, folds, _read_view(a), _read_view(b), output, start, label)
    return Reduce(loops, folds, str(entry["reduce"]), _read_view(entry["x"]), output, label)


def from_bytes(content: bytes) -> StreamProgram:
    """The program that `to_bytes` wrote.

    Raises:
        EngineError: it is not one, or not sound.
    """
    if not content.startswith(_MAGIC):
        raise EngineError("not a program of this version: build the engine again")
    end = content.find(b"\n", len(_MAGIC))
    try:
        head = json.loads(content[len(_MAGIC) : end])
        buffers, at = {}, end + 1
        for name, size, kind, has_start in head["buffers"]:
            start = None
            if has_start:
                start = np.frombuffer(content, "<f4", int(size), at).astype(np.float32)
                at += 4 * int(size)
            buffers[str(name)] = Buffer(str(name), int(size), str(kind), start)
        program = StreamProgram(
            window=int(head["window"]),
            width=int(head["width"]),
            outputs=int(head["outputs"]),
            warm=int(head["warm"]),
            idle=int(head["idle"]),
            buffers=buffers,
            sections={
                str(name): tuple(_read_operation(op) for op in section)
                for name, section in head["sections"].items()
            },
            facts={str(k): str(v) for k, v in head["facts"].items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"the program is damaged: {error!r}: build the engine again") from error
    return check(program)
