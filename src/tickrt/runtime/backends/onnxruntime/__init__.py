"""ONNX Runtime through its C API, called by the compiled loop.

- `api`: sessions and tensors as addresses; `whole`: the whole window; `split`: tick-split models.
"""
