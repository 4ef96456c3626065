"""Programs are read and run under Python 3.9 too, with NumPy and nothing else."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "tickrt"
# What the modules of `program` import of tickrt, and what importing those runs.
FILES = [
    *sorted((SOURCE / "program").glob("*.py")),
    *(SOURCE / name for name in ("__init__.py", "errors.py", "compile/__init__.py")),
    SOURCE / "compile" / "codes.py",
]
ALLOWED = {"tickrt.program", "tickrt.errors", "tickrt.compile"}
RUN = """
import sys
from tickrt.program import from_bytes, to_bytes
from tickrt.program.reference import Reference
from tickrt.program.text import describe
import numpy as np
content = sys.stdin.buffer.read()
program = from_bytes(content)
assert to_bytes(program) == content
engine, row = Reference(program), np.ones(program.width, np.float32)
for seq in range(program.warm):
    engine.advance(seq, row)
print(len(describe(program)), *(x.hex() for x in map(float, engine.submit(program.warm, row))))
heavy = ("numba", "onnx", "onnxruntime", "pydantic")
assert not [name for name in sys.modules if name.split(".")[0] in heavy]
"""


def _content() -> bytes:
    from helpers.programs import checked, program
    from tickrt.models.architectures import zoo
    from tickrt.program import to_bytes

    made = program(checked(zoo.recurrent("LSTM", 1, 3, 4, 2)), "bank")
    assert made is not None
    return to_bytes(made)


def _run(python: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [python, "-c", RUN], input=_content(), capture_output=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_parses_as_python_3_9_and_imports_little(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    standard = set(sys.stdlib_module_names)
    body = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in body:
        if node in typing_only:
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            own = name == "tickrt" or any(name.startswith(a) for a in ALLOWED)
            assert own or name.split(".")[0] in {*standard, "numpy"}, f"{path.name}: {name}"


def test_runs_with_numpy_alone() -> None:
    assert _run(sys.executable)


def test_runs_under_python_3_9() -> None:
    """Where there is one with NumPy: `TICKRT_PYTHON39`, else `python3.9`."""
    given, found = os.environ.get("TICKRT_PYTHON39"), shutil.which("python3.9")
    if given is None:
        probe = subprocess.run([found or "false", "-c", "import numpy"], capture_output=True)
        if probe.returncode:
            pytest.skip("no Python 3.9 with NumPy here: set TICKRT_PYTHON39")
    python = str(given or found)
    assert _run(python) == _run(sys.executable)
