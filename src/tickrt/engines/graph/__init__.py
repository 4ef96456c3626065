"""An ONNX model as a file and a graph: `load` reads it, `check` holds it to the contract."""
