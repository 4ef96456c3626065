"""Built bundles and the channels that say which of them runs where.

- `registry.Registry`; `audit`: its hash-chained log; `watch`: builds what appears in a folder.
"""
