"""ONNX → bundle: `request` what is asked, `lower` graph by graph, `build` all of it.

- `parity`: the built engine beside the original; `inspect`: what is in a bundle, and two compared.
- `portable`: engines of the `onnxruntime` backend.
- `runnable`: a bundle's engines as the loop takes them.
"""
