"""A program as C for the CPU, compiled by the machine's compiler and compared before it is used.

Entry points: `prepare(model, plan)`; `unpack` for what a bundle holds. In the order in which a
model meets them:

    schedule   how each contraction is computed         arena      where everything lies
    source     the C text; writer, loops, contracts     compiler   text → object
    kernel     the object's functions, and engines      verify     beside NumPy and ONNX Runtime
    prepared   all of it, kept on disk                  package    in a bundle; builder makes one
    sparse     products of which most is known
"""

from tickrt.engines.native.compiler import why_not
from tickrt.engines.native.package import split_figures, unpack
from tickrt.engines.native.prepared import Prepared, prepare

__all__ = ["Prepared", "prepare", "split_figures", "unpack", "why_not"]
