"""What we run: engines behind one handle, the hot loop, the session around it.

- `session.Session`: files in, report out.
- `loop_kernels.loop`: the hot loop, on one screen; `step_kernels`: one batch through it.
- `backends`: what the loop sees of an engine, and the built-in backends.
- `assembly.assemble`: from a configuration to streams, engines and strategies, wired up.
"""
