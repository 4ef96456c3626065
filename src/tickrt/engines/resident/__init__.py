"""A persistent CUDA kernel from a program: `generate(program, blocks)` → `Kernel`."""
