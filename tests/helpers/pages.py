"""The code blocks of the documentation, and how they are run."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["DOCS", "ROOT", "blocks", "files", "script"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- run -->\n)?^ *```(\w+)\n(.*?)^ *```", re.M | re.S)
NAME = re.compile(r"# ([\w.-]+\.(?:py|toml))\n")


def blocks(page: Path, language: str, *, marked: bool = False) -> list[str]:
    """The code blocks of a page in a language; `marked`: only those after ``<!-- run -->``."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for mark, kind, text in found if kind == language and (mark or not marked)]


def files(page: Path) -> dict[str, str]:
    """The blocks that are whole files: those whose first line is a comment with the file's name."""
    texts = [*blocks(page, "python"), *blocks(page, "toml")]
    return {match[1]: text for text in texts if (match := NAME.match(text))}


def script(page: Path) -> str:
    """The other Python blocks of a page, in order, as one script."""
    return "\n\n".join(text for text in blocks(page, "python") if not NAME.match(text))
