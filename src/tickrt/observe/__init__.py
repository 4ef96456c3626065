"""What came out: histograms, the machine's clock and floor, the report. Never calls the loop.

- `histogram.new_histograms`, `kernels.record`: latency histograms that compiled code writes.
- `clock.ticks_per_ns`, `clock.floor`: what a clock tick is, and what the machine itself costs.
- `report.write_report`: a plain dict → ``report.json`` and a self-contained ``report.html``.
- `table.print_report`: the same in the terminal.
"""
