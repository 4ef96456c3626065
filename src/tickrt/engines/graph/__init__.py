"""An ONNX model as a file and a graph.

- `load` reads it, `check` holds it to the contract, `ort` runs it on the CPU.
- `interface`: what every room says of tensors; `order`: of nodes; `cells`: recurrent cells in plain
  operators.
"""
