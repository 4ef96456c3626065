"""The floor of a GPU: a program that sends a row's first numbers back, and no model.

Entry point: `echo(width)`. A kernel of it costs what the mailbox costs and nothing else.
"""

from __future__ import annotations

from tickrt.program import Buffer, Instruction, Map, Move, Operation, StreamProgram, View

__all__ = ["echo"]


def echo(width: int, window: int = 8) -> StreamProgram:
    """A program that answers with the row's first three numbers; `width` is at least 3."""
    first = View("rows", 0, (1,), (Move("seq", width, 0, window),))
    send = Map((3,), (first,), (Instruction("load", (0,)),), (View("output", 0, (1,)),), (0,))
    buffers = {
        "rows": Buffer("rows", 2 * window * width, "rows"),
        "output": Buffer("output", 3, "output"),
    }
    sections: dict[str, tuple[Operation, ...]] = {"step": (send,), "advance": ()}
    return StreamProgram(window, width, 3, 0, 0, buffers, sections, {"model": f"echo-{width}"})
