"""The command line. `main` is what the `tickrt` script calls; one short file per command.

Nothing heavy is imported before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``tickrt`` with `arguments` (None: the process's) and return its exit code.

    SIGINT, SIGTERM and SIGHUP end any command in order: 130, 143 and 129.
    """
    from tickrt.interrupts import EXIT_BASE, Interrupted, handled

    try:
        with handled(last=arguments is None):
            from tickrt.cli.app import run_app

            return run_app(arguments)
    except Interrupted as end:
        return EXIT_BASE + end.signum
