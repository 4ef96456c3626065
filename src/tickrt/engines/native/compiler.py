"""C to a shared object, with the machine's own compiler.

Entry points: `find_compiler()`, `Compiler.build(source, target)`; `why_not()` where there is none.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tickrt.errors import BuildError

__all__ = [
    "Compiler",
    "cpu_digest",
    "cpu_name",
    "find_compiler",
    "has_wide_registers",
    "why_not",
]

_NAMES = ("cc", "gcc", "clang")
_TIMEOUT_S = 120
# Nothing here lets the compiler forget NaN, infinities or the order of sums.
_FLAGS = (
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its path and the first line of its version."""

    path: str
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        """For this very processor."""
        if platform.machine() in ("x86_64", "AMD64"):
            wide = ("-mprefer-vector-width=512",) if has_wide_registers() else ()
            return (*_FLAGS, "-march=native", *wide)
        return (*_FLAGS, "-mcpu=native")

    def build(self, source: Path, target: Path) -> None:
        """Compile `source` to the shared object `target`; both in one folder.

        Raises:
            BuildError: the compiler refuses it, or takes more than two minutes.
        """
        command = [self.path, *self.flags, "-o", target.name, source.name, "-lm"]
        try:
            done = subprocess.run(
                command,
                cwd=source.parent,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{self.path}: {error}") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line]
            first = (lines or done.stderr.splitlines() or ["no message"])[0]
            raise BuildError(f"{self.path} ({self.version}) refuses the generated code: {first}")


@functools.cache
def _version(path: str) -> str | None:
    """The first line of ``--version``; None where it does not run."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


def find_compiler() -> Compiler | None:
    """The first of cc, gcc and clang that runs."""
    for name in _NAMES:
        path = shutil.which(name)
        version = path and _version(path)
        if path and version:
            return Compiler(path, version)
    return None


def why_not() -> str:
    """Why nothing can be compiled here; empty where it can."""
    if find_compiler() is None:
        return f"there is no C compiler ({', '.join(_NAMES)}): install gcc or clang"
    return ""


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """What the processor can do, as Linux says it; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def has_wide_registers() -> bool:
    """Whether this processor has those of AVX-512."""
    return "avx512f" in _cpu_flags()


@functools.cache
def cpu_name() -> str:
    """The processor as a person calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return f"{value.strip()} ({cpu_digest()[:6]})"
    return f"{platform.machine()} ({cpu_digest()[:6]})"


@functools.cache
def cpu_digest() -> str:
    """Changes where compiled code may not run: the processor's kind and what it can do."""
    text = f"{platform.machine()} {platform.processor()} {' '.join(sorted(_cpu_flags()))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
