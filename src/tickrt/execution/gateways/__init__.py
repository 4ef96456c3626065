"""Where orders go and reports come from.

- `paper_kernels`: answers from the displayed book; `hftbacktest`: a simulated venue.
"""
