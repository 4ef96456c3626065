"""Lines of C, and what a view is in C.

Entry point: `Writer`. Loops of an operation are ``n0, n1, …``, its folds ``k0, k1, …``; memory is
``m`` plus the place of a buffer, rows are ``rows``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tickrt.engines.native.arena import Arena
from tickrt.program import StreamProgram, View
from tickrt.program.ir import ROWS

__all__ = ["Writer", "comment", "places", "terms"]


def comment(text: str) -> str:
    """Text that cannot end a comment."""
    return re.sub(r"[^\x20-\x7e]", "?", text).replace("*/", "* /").replace("/*", "/ *")


def terms(indices: Sequence[str], strides: Sequence[int]) -> str:
    """``n0 * 62 + n1``; 0 where there is none."""
    parts = [
        index if stride == 1 else f"{index} * {stride}"
        for index, stride in zip(indices, strides, strict=True)
        if stride
    ]
    return " + ".join(parts) or "0"


def places(arena: Arena) -> dict[str, str]:
    """The C name of every buffer's place."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for name in arena.buffers:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)
        unique, number = f"at_{base}", 1
        while unique in taken:
            number += 1
            unique = f"at_{base}_{number}"
        taken.add(unique)
        names[name] = unique
    return names


class Writer:
    """Collects lines; knows where buffers lie."""

    def __init__(self, program: StreamProgram, arena: Arena) -> None:
        self.program, self.arena = program, arena
        self.names = places(arena)
        self.lines: list[str] = []
        self._depth = 0

    def line(self, text: str = "") -> None:
        """One line."""
        self.lines.append("    " * self._depth + text if text else "")

    @contextmanager
    def block(self, head: str = "") -> Iterator[None]:
        """``head { … }``."""
        self.line(f"{head} {{".lstrip())
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    @contextmanager
    def loops(self, names: Sequence[str], sizes: Sequence[int]) -> Iterator[None]:
        """Nested loops; no braces but the innermost's."""
        for name, size in zip(names, sizes, strict=True):
            self.line(f"for (long {name} = 0; {name} < {size}; {name}++) {{")
            self._depth += 1
        yield
        for _ in names:
            self._depth -= 1
            self.line("}")

    def address(self, view: View) -> str:
        """Where a view's first element lies now."""
        parts = ["rows"] if view.buffer == ROWS else ["m", self.names[view.buffer]]
        if view.offset:
            parts.append(str(view.offset))
        for move in view.moves:
            index = f"{move.index} + {move.shift}" if move.shift else move.index
            if move.period:
                parts.append(f"at({index}, {move.period}) * {move.stride}")
            elif move.shift:
                parts.append(f"({index}) * {move.stride}")
            else:
                parts.append(f"{index} * {move.stride}")
        return " + ".join(parts)
