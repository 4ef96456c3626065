"""What a host imports runs under Python 3.9 with NumPy alone; where such a one is here, it does."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tickrt
from helpers.window_kernel import KERNELS, expected, parcel, weight
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide

ROOT = Path(tickrt.__file__).parent
T, F = 4, 3
# Outside the standard library; `cryptography` where it is there, `onnxruntime` for its own kernel.
ALLOWED = {"numpy", "cryptography", "onnxruntime", "tickrt"}
# Parts of the package that a host may use.
PARTS = {"host", "program", "errors", "environment", "compile", "engines", "__version__"}
# Modules and names that came after 3.9.
LATER = {
    *("tomllib", "itertools.pairwise", "enum.StrEnum", "datetime.UTC", "contextlib.chdir"),
    *("typing.Self", "typing.TypeAlias", "typing.assert_never", "typing.Never", "types.NoneType"),
    *("typing.ParamSpec", "typing.TypeGuard", "typing.override", "itertools.batched"),
}


def file_of(module: str) -> Path | None:
    path = ROOT.parent / Path(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported, wherever it is, but for type checkers alone."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure() -> dict[str, Path]:
    """Every module of the package that a host may import, by its name, with what they import."""
    todo = [
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        for part in ("host", "program")
        for path in (ROOT / part).rglob("*.py")
    ]
    found: dict[str, Path] = {}
    while todo:
        module = todo.pop().removesuffix(".__init__")
        path = file_of(module)
        if path is None:
            if "." in module and module.startswith("tickrt"):
                todo.append(module.rpartition(".")[0])  # a name of a module
            continue
        if module in found:
            continue
        found[module] = path
        todo += [module.rpartition(".")[0] or "tickrt", *imports(ast.parse(path.read_text()))]
    return found


MODULES = closure()


def outside_annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is evaluated when the module or a function of it runs."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from outside_annotations(node)


def is_type(node: ast.AST) -> bool:
    builtin = {"int", "float", "str", "bytes", "bool", "dict", "list", "tuple", "set", "type"}
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Subscript):
        return is_type(node.value)
    return isinstance(node, ast.Name) and (
        node.id in builtin or (node.id[0].isupper() and not node.id.isupper())
    )


def too_new(module: str, path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    if not (tree.body and "from __future__ import annotations" in path.read_text()):
        yield from (
            f"{module}: annotations are evaluated"
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AnnAssign))
        )
    for name in imports(tree):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            yield f"{module} imports {name}"
        if name in LATER or f"{top}" in LATER:
            yield f"{module}: {name} came after 3.9"
        if top == "tickrt" and name.split(".")[1] not in PARTS:
            yield f"{module} imports {name}"
    for node in outside_annotations(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            if is_type(node.left) or is_type(node.right):
                yield f"{module}:{node.lineno}: X | Y at run time"
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", "")
            words = {word.arg for word in node.keywords}
            if (called == "zip" and "strict" in words) or (
                called == "dataclass" and words & {"slots", "kw_only"}
            ):
                yield f"{module}:{node.lineno}: {called}({', '.join(map(str, words))})"


def test_the_closure_is_what_it_should_be() -> None:
    assert {"tickrt.host.service", "tickrt.program.reference", "tickrt.errors"} <= set(MODULES)
    assert {"tickrt.compile.codes", "tickrt.engines.bundle.head", "tickrt"} <= set(MODULES)
    assert {f"tickrt.host.{m}" for m in ("cuda", "memory.vulkan", "kernels.resident")} <= set(
        MODULES
    )
    assert "tickrt.compile.jit" not in MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_it_is_python_3_9(module: str) -> None:
    assert not list(too_new(module, MODULES[module]))


@pytest.mark.parametrize(
    "line",
    [
        "match x:\n    case 1: pass",
        "x = int | None",
        "isinstance(x, int | str)",
        "for a, b in zip(x, y, strict=True): pass",
        "@dataclass(frozen=True, slots=True)\nclass A: pass",
        "import pydantic",
        "from tickrt.config import SessionConfig",
        "from itertools import pairwise",
        "import tomllib",
    ],
)
def test_what_is_newer_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(f"from __future__ import annotations\n{line}\n")
    try:
        assert list(too_new("m", path))
    except SyntaxError:
        assert line.startswith("match")


@pytest.fixture(scope="module")
def old_python() -> str:
    """A Python 3.9 with NumPy."""
    found = shutil.which("python3.9")
    probe = "import sys, numpy; print(*sys.version_info[:2])"
    asked = found and subprocess.run([found, "-c", probe], capture_output=True, text=True)
    if not asked or asked.stdout.split() != ["3", "9"]:
        pytest.skip("no python3.9 with NumPy on the PATH")
    return str(found)


def test_a_host_runs_under_it(old_python: str) -> None:
    rows = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, T, F), 3)
    some = np.random.default_rng(2).normal(size=(T, F)).astype(np.float32)
    wanted = np.full((T, 3), np.nan, np.float32)
    wanted[-1] = expected(some, weight(T, F))
    with HostProcess(old_python, kernels=KERNELS) as host:
        assert host.facts["python"].startswith("3.9.")
        host.warm("program")
        host.load(parcel(T, F), side.layout, (side.rows, side.host), side.box)
        assert host.verify(some, wanted, 1e-6) < 1e-6
        host.start()
        assert host.stats()["rows"] == 0
    side.close()
