"""A program as C for the CPU, compiled by the machine's compiler and compared before it is used.

Entry point: `prepare(model, plan)`. In the order in which a model meets them:

    schedule   how each contraction is computed         arena      where everything lies
    source     the C text; writer, loops, contracts     compiler   text → object
    kernel     the object's functions, and engines      verify     beside NumPy and ONNX Runtime
    prepare    all of it, kept on disk
"""

from tickrt.engines.native.compiler import why_not
from tickrt.engines.native.prepare import Prepared, prepare

__all__ = ["Prepared", "prepare", "why_not"]
