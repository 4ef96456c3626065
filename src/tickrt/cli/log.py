"""What commands say beside their result: one logger tree, ``tickrt``, on stderr.

Entry point: `set_up`. Lines for people by default, JSON lines on request. Only commands call it:
``import tickrt`` leaves logging as it is.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from tickrt.cli import progress

__all__ = ["JsonLines", "set_up"]

_STYLES = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


class JsonLines(logging.Formatter):
    """One object per line: time (ISO, UTC), level, logger, message, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Lines(logging.Handler):
    """``warning: …`` in the words and colours of the errors that commands print, or JSON lines."""

    def emit(self, record: logging.LogRecord) -> None:
        if self.formatter is not None:
            print(self.format(record), file=sys.stderr, flush=True)
            return
        from rich.console import Console
        from rich.text import Text

        level = record.levelname.lower()
        line = Text(f"{level}: ", style=_STYLES.get(level, "dim"))
        line.append(self.format(record))
        Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def set_up(verbosity: int, as_json: bool) -> None:
    """Send what the logger ``tickrt`` says to stderr.

    Args:
        verbosity: −1 errors, 0 warnings too, 1 what is done, 2 everything.
        as_json: one JSON object per line, and no progress.
    """
    logger = logging.getLogger("tickrt")
    handler = _Lines()
    if as_json:
        handler.setFormatter(JsonLines())
    logger.handlers = [handler]
    logger.setLevel(_LEVELS.get(verbosity, logging.DEBUG))
    progress.shown = verbosity >= 0 and not as_json
