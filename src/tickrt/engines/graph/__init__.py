"""An ONNX model as a file and a graph.

`load` reads it, `check` holds it to the contract, `interface` names what goes in and out.
"""
