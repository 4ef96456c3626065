"""tickrt: deep-learning inference inside a low-latency trading loop.

An ONNX model goes between a level-2 market feed and an order gateway; the time from a tick to the
order that it causes is a few microseconds. `import tickrt` is quick: nothing here imports Numba,
ONNX Runtime or CUDA until it is asked for.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
