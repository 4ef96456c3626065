"""The hot loop: `state` its memory, `step_kernels` one batch, `loop_kernels` the loop."""
