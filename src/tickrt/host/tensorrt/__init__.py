"""TensorRT 8.5 … 11 and TensorRT-RTX, in a host: under the interpreter that has the library.

- `versions`: which library there is, and what its bindings have; `builder`: ONNX bytes → plan.
- `plans`: a plan as an engine with its tensors, and as a function for parity checks.
"""
