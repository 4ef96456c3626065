"""ONNX → `tickrt.program`: what every generated kernel is made from.

Entry points: `stream_program(model, plan)` → `StreamProgram`; `TranslateError` where an operator
has no rule. `graph.RULES` is the table of rules; a new operator is one function in ``rules_*``.
"""

from tickrt.engines.translate.builder import TranslateError
from tickrt.engines.translate.graph import RULES
from tickrt.engines.translate.stream import stream_program

__all__ = ["RULES", "TranslateError", "stream_program"]
