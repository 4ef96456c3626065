"""Recorded captures: read, convert to event files, describe and verify those.

- `convert.convert(paths, out, …)`: raw captures → event file; `reader` opens them.
- `describe.describe(path)`: what is in an event file.
- `verify.verify_best(path, captures)`: its best prices against the captures' bookTicker messages.
"""
