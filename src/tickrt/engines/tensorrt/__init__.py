"""What a model needs before TensorRT sees it: this side of a build, without the library.

`profiles` gives shapes to its open axes, `expand` writes operators out that a parser lacks. The
library itself is asked in an engine host (`host.tensorrt`, `runtime.backends.tensorrt`).
"""
