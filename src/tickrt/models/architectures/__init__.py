"""Reference networks of the field as ONNX: `net` a small builder, `zoo` the networks.

- `checkpoint`: weights out of a PyTorch checkpoint without running what is in it.
"""
