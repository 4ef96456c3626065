"""The files of a machine, below a root folder.

Entry points: `Tree`; `cores_of` and `cores_text` for lists of cores as the kernel writes them.

Invariants: paths are given and returned as on the machine, whatever the root; nothing is written.
What cannot be read raises OSError, with the path as on the machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Tree", "cores_of", "cores_text"]

_PROGRAMS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/cuda/bin")
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/*/lib",
)


@dataclass(frozen=True)
class Tree:
    """A machine's files.

    Attributes:
        root: where they lie; ``/``: this machine.
        programs: folders with programs that are searched before the usual ones.
    """

    root: Path = Path("/")
    programs: tuple[str, ...] = ()

    def at(self, path: str) -> Path:
        """Where a path of the machine lies."""
        return self.root / path.lstrip("/")

    def data(self, path: str) -> bytes:
        """What a file holds.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return self.at(path).read_bytes()
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    def text(self, path: str) -> str:
        """The text of a file, without space around it.

        Raises:
            OSError: it cannot be read.
        """
        return self.data(path).decode("utf-8", "replace").strip()

    def maybe(self, path: str) -> str:
        """The text of a file; empty where it cannot be read."""
        try:
            return self.text(path)
        except OSError:
            return ""

    def has(self, path: str) -> bool:
        """Whether something is there."""
        return os.path.lexists(self.at(path))

    def find(self, pattern: str) -> list[str]:
        """The paths that match, in the order of the numbers in them."""
        found = self.root.glob(pattern.lstrip("/"))
        paths = [f"/{path.relative_to(self.root).as_posix()}" for path in found]
        return sorted(paths, key=lambda p: [int(n) for n in re.findall(r"\d+", p)] or [0])

    def program(self, *names: str) -> str | None:
        """The path of the first of these programs that is installed."""
        for name in names:
            for folder in (*self.programs, *_PROGRAMS):
                if os.access(self.at(f"{folder}/{name}"), os.X_OK):
                    return f"{folder}/{name}"
        return None

    def library(self, pattern: str) -> str | None:
        """The path of a shared library in the usual folders: ``libvulkan.so*``."""
        for folder in _LIBRARIES:
            found = self.find(f"{folder}/{pattern}")
            if found:
                return found[0]
        return None

    def value(self, path: str, key: str) -> str:
        """The first value of `key` in a file of lines ``key : value``; empty where it has none.

        Raises:
            OSError: it cannot be read.
        """
        for line in self.text(path).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
        return ""

    def boot_options(self) -> dict[str, str]:
        """What the kernel was started with; empty where it cannot be read."""
        words = self.maybe("/proc/cmdline").split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}


def cores_of(text: str) -> set[int]:
    """``0-3,8`` as numbers; what is no number or range is left out (``(null)``)."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match:
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def cores_text(cores: Iterable[int]) -> str:
    """Numbers as the kernel writes them: ``0-3,8``; ``none`` for none."""
    parts: list[tuple[int, int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], core)
        else:
            parts.append((core, core))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"
