"""What happened: events, instruments, the order book, event files, a simulated market. Pure.

- `types`, `messages`: the structured dtypes that everything else speaks.
- `instrument.Instrument`: ticks, lots, contract terms, fees.
- `book.new_book` and `kernels`: a level-2 book per symbol, in integer ticks.
- `io.load_events`, `io.save_events`, `io.merge_events`: event files.
- `simulator.simulate`: a seeded queue-reactive market; `calibrate` made its numbers.
"""
