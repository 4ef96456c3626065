"""What computes answers in a host: one file for each kind of engine.

- `registry`: finds them by the format of the engine, and says what each has to offer.
- `reference`: programs in NumPy, for tests and as the measure of all others.
"""
