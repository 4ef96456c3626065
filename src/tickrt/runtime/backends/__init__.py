"""What runs models, behind one handle.

- `handle`: what the hot loop sees of an engine; `null`: a constant; `onnxruntime`: the CPU.
- `mailbox`: engines in a process of their own; `reference`: programs in NumPy, in such a process.
- `wanted`: what a session asks of a model, where a backend starts from ONNX.

`tickrt.backends` finds them by name.
"""
