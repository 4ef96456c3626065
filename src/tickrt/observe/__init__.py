"""How long it took: histograms, the machine's clock and floor. Never calls the loop.

- `histogram.new_histograms`, `kernels.record`: latency histograms that compiled code writes.
- `clock.ticks_per_ns`, `clock.floor`: what a clock tick is, and what the machine itself costs.
- `machine.machine_info`: what it was measured on.
- `doctor.examine.examine`: what on a machine costs latency; `nvml.read_gpus`: what its GPUs do.
"""
