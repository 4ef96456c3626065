"""From a program to a kernel for one GPU architecture: `build(program, architecture)`.

Compiled by ``nvcc`` where it is on the path; the result is kept in the cache folder under the
digest of the source and the compiler. A kernel whose registers spill is made again with fewer
weights in them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tickrt.engines.resident.kernel import Kernel, generate
from tickrt.engines.resident.schedule import KEPT, SHARED_PRODUCTS, THREADS
from tickrt.engines.translate.builder import TranslateError
from tickrt.environment import cache_folder
from tickrt.errors import BuildError
from tickrt.files import write_file
from tickrt.program import Contract, StreamProgram

__all__ = ["Built", "build", "compile_source", "compiler", "default_blocks", "forms"]

ARCHITECTURE = "sm_90a"
_BUDGETS = (64, 56, 48, 40, 32, 24, 16, 8)  # weights per thread, tried until nothing spills
_SMALL = 2048  # of a product that is shared out, a constant that is kept, where nothing else fits
_LARGE = 100_000  # multiply-adds of a product that is worth sixteen blocks


@dataclass(frozen=True, eq=False)
class Built:
    """A kernel and its machine code.

    Attributes:
        architecture: as ``sm_90a``.
        cubin: for `host.kernels.resident`.
        profiled: it notes the cycles of its parts (`Kernel.marks`).
        threads: of a block.
    """

    kernel: Kernel
    architecture: str
    cubin: bytes
    profiled: bool = False
    threads: int = THREADS


@cache
def compiler() -> tuple[str, str]:
    """(path of nvcc, its version); empty where there is none."""
    path = shutil.which("nvcc")
    if path is None:
        return "", ""
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"V([0-9.]+)", text)
    return path, found.group(1) if found else ""


def compile_source(
    source: str, architecture: str = ARCHITECTURE, profile: bool = False
) -> tuple[bytes, int]:
    """(cubin, bytes that registers spill) of a kernel's source.

    Raises:
        BuildError: there is no nvcc, or it refuses the source; says why.
    """
    path, version = compiler()
    if not path:
        raise BuildError("no nvcc on the path: install the CUDA toolkit, 12.0 or later")
    options = ["-O3", "-Xptxas", "-v", *(["-DPROFILE"] if profile else [])]
    text = f"{version} {architecture} {options}\n{source}"
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    kept = cache_folder("resident") / f"{key}.cubin"
    spilled = kept.with_suffix(".spill")
    try:
        return kept.read_bytes(), int(spilled.read_text())
    except (OSError, ValueError):
        pass
    compute = architecture.replace("sm_", "compute_")
    with tempfile.TemporaryDirectory(prefix="tickrt-nvcc-") as folder:
        file, out = Path(folder) / "kernel.cu", Path(folder) / "kernel.cubin"
        file.write_text(source, encoding="utf-8")
        target = f"-gencode=arch={compute},code={architecture}"
        command = [path, "-cubin", target, *options, "-o", str(out), str(file)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise BuildError(
                f"nvcc {version} refuses a generated kernel: {run.stderr.strip()[:2000]}"
            )
        cubin = out.read_bytes()
    found = re.search(r"(\d+) bytes spill stores", run.stderr)
    spill = int(found.group(1)) if found else 0
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(spilled, [str(spill).encode()])
        write_file(kept, [cubin])
    except OSError:  # a full or read-only disk costs the next start a second, nothing else
        pass
    return cubin, spill


def default_blocks(program: StreamProgram) -> int:
    """Multiprocessors that a program is best shared out among."""
    largest = 0
    for op in program.sections["step"]:
        if isinstance(op, Contract) and len(op.loops) == 1 and len(op.folds) == 1:
            largest = max(largest, op.loops[0] * op.folds[0])
    return 16 if largest >= _LARGE else 8


def build(
    program: StreamProgram,
    architecture: str = ARCHITECTURE,
    blocks: int | None = None,
    one_poller: bool = False,
    profile: bool = False,
) -> Built:
    """The kernel of a program.

    Args:
        blocks: of its cluster; None: what suits its size.
        one_poller: its rows lie in host memory.
        profile: it notes the cycles of its parts.

    Raises:
        TranslateError: it does not fit, or has a form that kernels lack.
        BuildError: there is no compiler, or it refuses the source.
    """
    problem: TranslateError | None = None
    for count, shared_from, kept in forms(program, blocks):
        for budget in _BUDGETS:
            try:
                kernel = generate(program, count, budget, one_poller, shared_from, kept)
            except TranslateError as error:
                problem = error
                continue
            cubin, spill = compile_source(kernel.source, architecture, profile)
            if spill == 0 or budget == _BUDGETS[-1]:
                return Built(kernel, architecture, cubin, profile)
    raise problem or TranslateError("its registers spill however few weights they hold")


def forms(program: StreamProgram, blocks: int | None) -> list[tuple[int, int, int]]:
    """(blocks, products from which a stage is shared out, floats of a constant that is kept in
    shared memory), the quickest first: one block's weights may not fit where those of all do."""
    counts = [blocks] if blocks else sorted({default_blocks(program), 16})
    sizes = [(SHARED_PRODUCTS, KEPT), (_SMALL, KEPT), (_SMALL, _SMALL)]
    return [(count, *size) for size in sizes for count in counts]
