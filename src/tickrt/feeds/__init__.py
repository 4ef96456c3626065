"""Where events come from: recorded captures, the ring that a live feed fills, and what checks them.

- `convert.convert(paths, out, *, kind="auto", symbol=None, on_gap="error", snapshot=None,
  progress=None) -> dict`: raw captures → event file.
- `info.describe(path) -> dict`: what is in an event file.
- `verify.verify_best(path, captures) -> dict`: an event file's best prices against the bookTicker
  messages of the captures that it was made from.
- `codec_binance.BinanceCodec`, `codec_gdax.GdaxCodec`: bytes → events, without I/O, into a
  `buffer.EventBuffer`; live feeds use the same.
- `file_feeder.FileFeeder(streams, ring)`: event files → the ring that the loop reads.
- `ring.Ring`, `ring.FeedView`, `ring.array_view`: what the loop reads from.
"""
