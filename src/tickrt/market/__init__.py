"""What happened: events, instruments, the order book, event files, a simulated market. Pure.

- `types`, `messages`: the structured dtypes that everything else speaks.
- `instrument.Instrument`: ticks, lots, contract terms, fees.
- `book.new_book` and `kernels`: a level-2 book per symbol, in integer ticks.
- `event_file.load_events`, `save_events`, `merge_events`: event files as a whole.
- `event_stream.open_stream`, `merge_streams`: the same in pieces, in bounded memory.
- `simulator.simulate`: a seeded queue-reactive market; `calibrate` made its numbers.
"""
