"""Recurrent cells as plain operators, for whoever writes a graph.

Entry points: `GATES` and `ACTIVATIONS` of each recurrent operator; `lstm_cell`, of one time step:
the gates' products are the caller's.

Equations: ONNX operator specification of LSTM, opset 14, default activations.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["ACTIVATIONS", "GATES", "CellWriter", "lstm_cell"]

GATES: Final = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS: Final = {  # by default
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


class CellWriter(Protocol):
    """Adds operators to a graph; `label` may become part of a name."""

    def add(self, kind: str, label: str, *inputs: str) -> str:
        """An operator with one output; the output's name."""
        ...

    def cut(self, label: str, tensor: str, sizes: list[int]) -> list[str]:
        """A Split along the last axis; the names of the parts."""
        ...


def lstm_cell(out: CellWriter, gates: str, cell: str | None, hidden: int) -> tuple[str, str]:
    """c' = f·c + i·g and h' = o·tanh(c').

    Args:
        gates: i, o, f, g before their activations, [batch, 4·H].
        cell: c [batch, H]; None: zeros.
        hidden: H.

    Returns:
        names of h' and c'.
    """
    iof, candidate = out.cut("split", gates, [3 * hidden, hidden])
    i, o, f = out.cut("iof", out.add("Sigmoid", "sigmoid", iof), [hidden, hidden, hidden])
    candidate = out.add("Tanh", "tanh", candidate)
    kept = out.add("Mul", "cell_keep", f, cell) if cell is not None else None
    new = out.add("Mul", "cell_in", i, candidate)
    if kept is not None:
        new = out.add("Add", "cell", kept, new)
    return out.add("Mul", "hidden", o, out.add("Tanh", "cell_tanh", new)), new
