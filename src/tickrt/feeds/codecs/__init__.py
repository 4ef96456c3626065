"""Bytes → events, without I/O, into a `buffer.EventBuffer`: `binance`, `coinbase`."""
