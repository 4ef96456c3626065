"""Tick-split: a windowed ONNX model becomes `pre` (the known rows) and `step` (the newest row).

    result = split(model)
    step(newest row, pre(rows 1…T−1)) == model(rows 1…T)      to float rounding

Files, in the order a model meets them: `prepare` (shapes, constants) and `canonicalize` (one
spelling) → `dependence` (which positions depend on the newest row; rules in `rules/`) →
`graph_builder` (writes the graphs), `finish`, `simplify` → `build` (puts it together) → `check`
(parity and times) → `draw` (the picture); `plan` keeps what was checked on disk.
"""

from tickrt.engines.split.build import Operator, OutputCost, SplitResult, State, split, write
from tickrt.engines.split.check import Parity, Timing, measure, verify
from tickrt.engines.split.dependence import Reason
from tickrt.engines.split.draw import draw

__all__ = [
    "Operator",
    "OutputCost",
    "Parity",
    "Reason",
    "SplitResult",
    "State",
    "Timing",
    "draw",
    "measure",
    "split",
    "verify",
    "write",
]
