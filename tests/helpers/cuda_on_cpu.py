"""Generated kernels on a CPU: `compile_kernel`, `Emulated.run` (`cuda_on_cpu.h` says how).

A stand-in for the GPU that is not here: barriers, shuffles and what blocks send to one another are
done in an order drawn by chance, so that a barrier that is missing shows. Times mean nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tickrt.compile import codes
from tickrt.engines.resident.kernel import Kernel
from tickrt.engines.resident.schedule import THREADS
from tickrt.program import StreamProgram

__all__ = ["Emulated", "Stuck", "compile_kernel", "on_cpu"]

HERE = Path(__file__).parent
_SLOTS, _SPINS = 8, 20_000
_STOP_SPINS = 1  # every look for a row is one for the word that says stop
_SHARED = {
    r"extern __shared__ __align__\(16\) float near\[\];": (
        "float *near = gpu::block().shared.data();"
    ),
    r"__shared__ unsigned long long arrivals\[\d+\];": (
        "auto *arrivals = (unsigned long long *)gpu::block().arrivals.data();"
    ),
    r"__shared__ uint4 head;": "uint4 &head = gpu::block().head;",
    r'asm volatile\("fence[^\n]*;': "",
    r"spins > \d+u": f"spins > {_SPINS}u",
    r"spins % \d+": f"spins % {_STOP_SPINS}",
}


class Stuck(Exception):
    """Threads of the kernel wait for one another for ever; says where."""


def on_cpu(source: str) -> str:
    """The source as C++: without the functions in PTX, shared memory as memory."""
    lines, kept, function = source.splitlines(), [], []
    for line in lines:
        if function or line.startswith("__device__"):
            function.append(line)
            if line.endswith("}") and (len(function) == 1 or line == "}"):
                if not re.search("asm|__cvta", "\n".join(function)):
                    kept += function
                function = []
            continue
        kept.append(line)
    text = "\n".join(kept)
    for pattern, replacement in _SHARED.items():
        text = re.sub(pattern, replacement, text)
    return text


def compile_kernel(kernel: Kernel, program: StreamProgram, folder: Path) -> Emulated:
    """Build it in `folder`; skips the test without a C++ compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    parts = [(HERE / "cuda_on_cpu.h").read_text(), on_cpu(kernel.source)]
    parts.append((HERE / "cuda_on_cpu_main.cc").read_text())
    source, out = folder / "kernel.cc", folder / "kernel"
    source.write_text("\n".join(parts))
    options = ["-std=c++17", "-O1", "-w", "-fsanitize=alignment,bounds"]
    options.append("-fno-sanitize-recover=all")
    done = subprocess.run(
        [compiler, *options, "-o", out, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return Emulated(kernel, program, out)


@dataclass(frozen=True)
class Emulated:
    """A kernel that runs here."""

    kernel: Kernel
    program: StreamProgram
    executable: Path

    def run(
        self,
        rows: np.ndarray,
        first: int = 1,
        flags: list[int] | None = None,
        seed: int = 0,
        ahead: int = 1,
        stop_within: int = 0,
    ) -> tuple[np.ndarray, list[int]]:
        """Rows float32 [n, F], numbered from `first`, through the kernel.

        Args:
            flags: of each row; None: an answer to each is wanted.
            ahead: rows that are sent before the first of them is taken.
            stop_within: the kernel is told to stop when fewer words than that are missing in the
                last row, which is on its way; 0: when all is done.

        Returns:
            outputs float32 [n, outputs], and the numbers that the answers bear: EMPTY_WORD where
            there is none. With `stop_within` only those of the rows that were taken.

        Raises:
            Stuck: threads wait for one another for ever, or one of them traps.
        """
        program, n = self.program, len(rows)
        numbers = first + np.arange(n)
        heads = np.zeros((n, 4), np.uint32)
        heads[:, 0], heads[:, 1] = numbers & 0x3FFFFFFF, numbers >> 30
        heads[:, 2] = codes.MAIL_ANSWER if flags is None else flags
        pieces, row_pieces = -(-program.outputs // 3), -(-program.width // 4)
        words = np.zeros((n, 4 * row_pieces), np.float32)
        words[:, : program.width] = rows
        kernel = self.kernel
        arrays = [kernel.starts, kernel.constants, kernel.weights]
        header = [kernel.blocks, THREADS, kernel.shared_bytes, _SLOTS, pieces, row_pieces, n]
        header += [ahead, seed, *(len(a) for a in arrays), stop_within, 0, 0, 0]
        data = b"".join([np.array(header, np.int64).tobytes(), *(a.tobytes() for a in arrays)])
        done = subprocess.run(
            [self.executable],
            input=data + heads.tobytes() + words.tobytes(),
            capture_output=True,
            timeout=200,
            check=False,
        )
        if done.returncode in (1, 2, 3):
            raise Stuck(done.stderr.decode())
        assert done.returncode == 0, done.stderr.decode()[:2000]
        out = np.frombuffer(done.stdout, np.uint32)
        slots = _SLOTS * 4 * (row_pieces + 1)
        answers = out[:-slots].reshape(-1, pieces, 4)
        if not stop_within:
            assert len(answers) == n
            assert (out[-slots:] == codes.EMPTY_WORD).all()  # every slot is empty again
        for answer in answers:
            assert len(set(answer[:, 3].tolist())) == 1
        values = np.ascontiguousarray(answers[:, :, :3]).reshape(len(answers), -1)[
            :, : program.outputs
        ]
        return np.ascontiguousarray(values).view(np.float32), answers[:, 0, 3].tolist()
