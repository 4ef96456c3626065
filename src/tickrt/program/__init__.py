"""A model as loops: the one form from which every generated kernel is made, and its meaning.

`ir` says what a program is, `reference` runs one in NumPy, `store` writes and reads it as bytes.

Invariants: Python 3.9 and NumPy suffice, here and wherever it is imported (an engine host may run
under another interpreter).
"""

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
from tickrt.program.store import from_bytes, to_bytes

__all__ = [
    "Buffer",
    "Contract",
    "For",
    "Instruction",
    "Map",
    "Move",
    "Operation",
    "Reduce",
    "StreamProgram",
    "View",
    "from_bytes",
    "to_bytes",
]
