"""What the model sees: a declarative spec with a hash, rows, the window. Pure.

- `spec.load_spec` → `spec.FeatureSpec`: columns, window, normalisation, `hash`.
- `streams.new_streams` and `kernels`: one row per completed batch, in a mirrored ring whose newest
  window is always contiguous.
- `user_columns`: a user's ``@njit`` function as a column.
"""
