"""TensorRT and TensorRT-RTX: `builder` makes engines, `profiles` their shapes, `run` runs one."""
