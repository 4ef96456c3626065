"""A built engine as one signed file.

- `format`: read and write; `manifest`: what it says of itself; `crypto`: keys, signing, encryption.
- `compat`: may this machine run it; `machine`: what it has.
- `toolchain`: what a backend that builds engines has to offer.
"""
