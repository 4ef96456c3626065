"""Memory that two processes share, by kind: a kind is a module of this folder.

- `registry`: finds them; `memfd`: ordinary memory; `vulkan`: the GPU's, which the CPU
  stores into.
"""
