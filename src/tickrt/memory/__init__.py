"""What the hot thread shares with others: fixed 64-byte records, and the rings they travel in.

- `records`: the dtypes.
- `ring.Ring`: a single-producer single-consumer ring in shared memory; `kernels` are its ends.
"""
