"""What runs models, behind one handle.

- `handle`: what the hot loop sees of an engine; `null`: a constant; `onnxruntime`: the CPU.

`tickrt.backends` finds them by name.
"""
