"""TensorRT and TensorRT-RTX.

`builder` makes plans, `profiles` their shapes, `run` runs one on `device`; `backend` is all of it
under its two names.
"""
