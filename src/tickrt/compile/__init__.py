"""How Numba is bent to our needs; every other package's kernels are compiled through this one.

- `jit`: the decorators `kernel`, `inline_kernel`, `kernel_internal`; C functions; the cache.
- `intrinsics`: the CPU's clock, calls through an address, ordered loads and stores.
- `by_ref`: a session's state by reference.
- `codes`: every number that compiled code and Python share.
"""
