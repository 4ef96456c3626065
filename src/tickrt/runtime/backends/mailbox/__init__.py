"""The loop's side of an engine that lives in a host process: rows out, answers in.

- `kernels`: the handle's functions, on plain memory; `engine`: the engine; `parcel`: what a model
  or bundle sends to its host.
"""
