"""Precision written into the ONNX graph: FP16, BF16, INT8, FP8; what stays in FP32; sparsity.

- `convert`: floating-point types; `quantize`: Q/DQ nodes from calibration rows.
- `decompose`: recurrent layers as cells; `fp32_layers`: sensitive layers; `sparsity`: 2:4 weights.
"""
