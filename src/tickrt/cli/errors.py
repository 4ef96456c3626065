"""How the command line tells that something is wrong: one line on stderr, exit code 2.

Entry points: `exit_code(call)`, `validated()`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tickrt.errors import ConfigError, TickrtError

__all__ = ["exit_code", "validated"]


def _say(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text("error: ", style="bold red").append(message, style="red")
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def exit_code(call: Callable[[], object]) -> int:
    """What `call` ends with. An error of ours or of the file system is printed, never a traceback;
    any other exception is a bug and passes. 128 + its number where a signal ended it."""
    from tickrt.interrupts import EXIT_BASE, received

    code = _outcome(call)
    signum = received()
    return code if signum is None else EXIT_BASE + signum


def _outcome(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except TickrtError as error:
        _say(str(error))
        return 2
    except OSError as error:
        if error.filename is None:
            if error.errno is None:
                raise
            _say(error.strerror or str(error))  # no space left, an I/O error: no name is known
            return 2
        _say(f"{error.filename}: {error.strerror or error}")
        return 2
    return 0


@contextmanager
def validated() -> Iterator[None]:
    """Turn pydantic's error into ours: ``threads: expected …, got …``, one clause per problem.

    Raises:
        ConfigError: instead of ``pydantic.ValidationError``.
    """
    from pydantic import ValidationError

    from tickrt.config import problems

    try:
        yield
    except ValidationError as error:
        raise ConfigError("; ".join(problems(error))) from None
