"""An engine host: a process of its own that owns one engine, and what passes between it and us.

- `mailbox`: the memory that rows and answers travel through; `memory`: the kinds of it.
- `process`: our side: starts a host, asks it, notices its end; `messages`: what the two say.
- `service`, `serve`: the host's side: requests, and the loop that answers rows; `kernels`: what
  computes the answers; `parcel` and `ed25519`: nothing is loaded that was not signed.
- `mps`: several hosts on one GPU; `cuda` and `vulkan`: the drivers, as much of them as is called.

Invariants: everything here runs on Python 3.9 with NumPy and no other package: a host may run under
an interpreter that has nothing else (tests/cpu/host/test_old_python.py holds it).
"""
