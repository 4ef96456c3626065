"""A program as text that a person reads: one block per operation.

Entry point: `describe(program)`. Indices count from 0 (`for i < 3`: 0, 1, 2); `a[…]` is an element
of a buffer; `sum(… for j < 402)` folds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tickrt.program.ir import (
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

__all__ = ["describe"]

_LETTERS = "ijklmnopqrtuvwxyz"
_INFIX = {"add": "+", "sub": "-", "mul": "·", "div": "/", "less": "<", "less_equal": "≤"}
_INFIX["equal"] = "=="
_SECTIONS = {
    "step": "row seq is here: the outputs",
    "first": "once, when the states are complete: in the place of advance",
    "advance": "row seq's order is out: what the next step needs",
}
_KINDS = {
    "rows": "the newest rows, twice",
    "output": "the outputs",
    "constant": "constants",
    "state": "states, kept from row to row",
    "scratch": "for the moment",
}


def describe(program: StreamProgram) -> str:
    """The program as text."""
    facts = ", ".join(f"{name} {value}" for name, value in program.facts.items())
    lines = [
        f"program: {facts}" if facts else "program",
        f"    {program.window} rows × {program.width} in, {program.outputs} out; runs from row "
        f"{program.warm + 1} on",
        "",
        "buffers (float32)",
    ]
    for kind, meaning in _KINDS.items():
        listed = [f"{b.name}[{b.size}]" for b in program.buffers.values() if b.kind == kind]
        if listed:
            lines.append(f"    {meaning}: {', '.join(listed)}")
    for name, meaning in _SECTIONS.items():
        if name in program.sections:
            lines += ["", f"{name}: {meaning}"]
            for operation in program.sections[name]:
                lines += [f"    {line}".rstrip() for line in _operation(operation, ())]
    return "\n".join(lines) + "\n"


def _operation(op: Operation, taken: tuple[str, ...]) -> Iterator[str]:
    """Lines of one operation; `taken` are the indices of the loops around it."""
    if op.label:
        yield f"# {op.label}"
    if isinstance(op, For):
        yield f"for {op.index} < {op.count}:"
        for inner in op.body:
            for line in _operation(inner, (*taken, op.index)):
                yield f"    {line}"
        return
    letters = [letter for letter in _LETTERS if letter not in taken]
    loops = letters[: len(op.loops)]
    indent = ""
    if loops:
        yield f"for {_ranges(loops, op.loops)}:"
        indent = "    "
    if isinstance(op, Map):
        for line in _map(op, loops):
            yield indent + line
        return
    folds = letters[len(loops) : len(loops) + len(op.folds)]
    yield indent + _fold(op, loops, folds)


def _fold(op: Contract | Reduce, loops: list[str], folds: list[str]) -> str:
    ranges = f" for {_ranges(folds, op.folds)}" if folds else ""
    target = _place(op.output, loops)
    if isinstance(op, Reduce):
        return f"{target} = {op.kind}({_place(op.x, loops + folds)}{ranges})"
    product = f"{_place(op.a, loops + folds)} · {_place(op.b, loops + folds)}"
    start = "" if op.start is None else f"{_place(op.start, loops)} + "
    return f"{target} = {start}sum({product}{ranges})"


def _map(op: Map, loops: list[str]) -> Iterator[str]:
    """Lines that are used once stand where they are used, the others have a name."""
    uses = [0] * len(op.body)
    for instruction in op.body:
        for line in _lines_of(instruction):
            uses[line] += 1
    for line in op.results:
        uses[line] += 1
    shown: list[str] = []
    names = 0
    for instruction, used in zip(op.body, uses):
        text = _expression(op, instruction, loops, shown)
        if used > 1 and instruction.function not in ("load", "value"):
            names += 1
            yield f"v{names} = {text}"
            text = f"v{names}"
        shown.append(text)
    for view, line in zip(op.outputs, op.results):
        yield f"{_place(view, loops)} = {_bare(shown[line])}"


def _lines_of(instruction: Instruction) -> list[int]:
    if instruction.function in ("load", "value"):
        return []
    return [int(a) for a in instruction.arguments]


def _expression(op: Map, instruction: Instruction, loops: list[str], shown: list[str]) -> str:
    name = instruction.function
    if name == "load":
        return _place(op.inputs[int(instruction.arguments[0])], loops)
    if name == "value":
        return str(np.float32(instruction.arguments[0]))
    parts = [shown[line] for line in _lines_of(instruction)]
    if name in _INFIX:
        return f"({parts[0]} {_INFIX[name]} {parts[1]})"
    if name == "neg":
        return f"(-{parts[0]})"
    return f"{name}({', '.join(_bare(part) for part in parts)})"


def _bare(text: str) -> str:
    """Without the brackets around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else text
    return text


def _ranges(names: list[str], sizes: tuple[int, ...]) -> str:
    return ", ".join(f"{name} < {size}" for name, size in zip(names, sizes))


def _place(view: View, names: list[str]) -> str:
    """The element of a buffer."""
    terms = [_times(move.stride, _moved(move)) for move in view.moves]
    terms += [_times(stride, name) for stride, name in zip(view.strides, names)]
    terms += [str(view.offset)] if view.offset else []
    shown = [term for term in terms if term]
    text = " + ".join(shown).replace("+ -", "- ") if shown else "0"
    return f"{view.buffer}[{text}]"


def _times(factor: int, name: str) -> str:
    if factor in (0, 1, -1):
        return {0: "", 1: name, -1: f"-{name}"}[factor]
    return f"{factor}·{name}"


def _moved(move: Move) -> str:
    text = f"{move.index} {'-' if move.shift < 0 else '+'} {abs(move.shift)}" if move.shift else ""
    if not move.period:
        return f"({text})" if text else move.index
    return f"({f'({text})' if text else move.index} mod {move.period})"
