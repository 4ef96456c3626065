"""The shape of the code base: import directions, sizes, fences around compiled code, public names.

The rules are those of docs/architecture.md; a change of a table here is a change of the design.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tickrt
from tickrt import errors
from tickrt.compile import codes
from tickrt.errors import Code, TickrtError, raise_code

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tickrt"
FILE_LINES, FUNCTION_LINES = 500, 70

BASE = {
    "__version__",
    "program",
    "backends",
    "environment",
    "errors",
    "files",
    "interrupts",
    "literals",
}
BASE |= {"compile", "memory", "program"}
MARKET = BASE | {"market"}
MAY_IMPORT = {
    **dict.fromkeys(BASE - {"errors"}, BASE),
    "errors": {"compile"},
    "market": BASE,
    **dict.fromkeys(("simulation", "feeds", "feature", "execution", "strategy"), MARKET),
    "risk": MARKET | {"strategy"},
    "engines": BASE,
    "models": BASE,
    "host": BASE | {"engines"},
    "config": BASE | {"strategy", "risk", "execution"},
    "observe": BASE,
    "offline": MARKET | {"feature", "engines"},
    "training": MARKET | {"feature", "models", "engines"},
}
MAY_IMPORT["runtime"] = set(MAY_IMPORT) - {"simulation", "training"}
MAY_IMPORT["report"] = MAY_IMPORT["runtime"] | {"runtime"}
MAY_IMPORT["backtest"] = MAY_IMPORT["report"] | {"report"}
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"backtest"}
MAY_IMPORT["__main__"] = {"cli"}

# Inside `engines`: a room may import those that stand before it.
ENGINE_ROOMS = (
    *("graph", "split", "bundle", "precision", "tensorrt", "registry", "translate"),
    *("native", "resident", "build"),
)

COMPILED = {
    *(f"compile/{name}.py" for name in ("jit", "intrinsics", "by_ref")),
    "feature/user_columns.py",
}
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "generated_jit", "cfunc", "intrinsic"}
COMPILERS |= {"kernel", "inline_kernel", "kernel_internal"}
NOT_IN_KERNELS = {"time", "os", "sys", "logging", "random", "threading", "pathlib", "io", "json"}

PUBLIC = {
    "tickrt.backtest.run": ["Backtest", "Clock", "run_backtest"],
    "tickrt.cli": ["main"],
    "tickrt.config": [
        "GATEWAYS",
        "POLICIES",
        "HftbacktestSettings",
        "NullSettings",
        "PaperSettings",
        "SessionConfig",
        "StrategySettings",
        "load_config",
        "pace_text",
        "parse_pace",
        "problems",
        "to_toml",
    ],
    "tickrt.feeds.captures.convert": [
        "KINDS",
        "KIND_NAMES",
        "ConvertOptions",
        "convert",
        "count_events",
    ],
    "tickrt.memory.ring": ["FeedView", "Ring", "array_view"],
    "tickrt.market.instrument": ["KNOWN", "Instrument"],
    "tickrt.models": ["ModelFiles", "find_model", "list_models"],
    "tickrt.report.report": ["SCHEMA", "load_report", "plain", "to_json", "write_report"],
    "tickrt.runtime.session": ["Session"],
}
# Their parameters are those of a C function.
PARAMETERS_BY_PROTOCOL = {"compile/intrinsics.py"}
OPTIONAL = ("torch", "sklearn", "onnxscript", "tensorrt", "tensorrt_rtx", "cuda", "polars")


def sources(*folders: str) -> list[Path]:
    """Python files under the given folders of the project."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    """The package, or module of the top folder, that a source file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[str]:
    """What a module imports of tickrt: its packages and top modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "tickrt" else [module]
        else:
            continue
        for name in names:
            if name.startswith("tickrt."):
                yield name.split(".")[1]


def test_imports_go_one_way() -> None:
    wrong = []
    for path in sources("src"):
        part = part_of(path)
        if part == "__init__":
            continue
        assert part in MAY_IMPORT, f"{name_of(path)}: a new part: say here what it may import"
        allowed = MAY_IMPORT[part] | {part}
        found = set(imported_parts(ast.parse(path.read_text())))
        wrong += [f"{name_of(path)} imports {other}" for other in sorted(found - allowed)]
    assert not wrong


def test_only_runtime_backtest_report_and_commands_touch_observe() -> None:
    users = {
        part_of(path)
        for path in sources("src")
        if "observe" in imported_parts(ast.parse(path.read_text()))
    }
    assert users <= {"observe", "runtime", "backtest", "report", "cli"}


def test_only_commands_and_the_face_import_training() -> None:
    users = {
        part_of(path)
        for path in sources("src")
        if "training" in imported_parts(ast.parse(path.read_text()))
    }
    assert users <= {"training", "cli", "__init__"}


def test_rooms_of_engines_go_one_way() -> None:
    """graph ← {split, bundle} ← {precision, tensorrt, registry, translate} ← {native, resident} ←
    build."""
    level = {"graph": 0, "split": 1, "bundle": 1, "precision": 2, "tensorrt": 2, "registry": 2}
    level |= {"translate": 2, "native": 3, "resident": 3, "build": 4}
    wrong = []
    for path in (SOURCE / "engines").rglob("*.py"):
        room = path.relative_to(SOURCE / "engines").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if not module.startswith("tickrt.engines.") or room == "__init__":
                continue
            other = module.split(".")[2]
            if other != room and level[other] >= level[room]:
                wrong.append(f"{name_of(path)} imports engines.{other}")
    assert not wrong


def test_constants_that_kernels_share_are_declared_once() -> None:
    names = {n for n in vars(codes) if n.isupper()}
    again = []
    for path in sources("src"):
        if not path.name.endswith("kernels.py"):
            continue
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            found = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            again += [f"{name_of(path)}: {name}" for name in sorted(found & names)]
    assert not again


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        name_of(path)
        for path in sources("src")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
    }
    assert readers == {"environment.py"}


def test_toml_is_read_in_one_place() -> None:
    readers = {
        name_of(path)
        for path in sources("src")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and "tomllib" in [alias.name for alias in node.names]
    }
    assert readers == {"files.py"}


def test_no_test_module_imports_another() -> None:
    wrong = []
    for path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[-1].startswith("test_"):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_every_test_is_collected(pytestconfig: pytest.Config) -> None:
    """No folder that pytest passes over, and no two files of one name."""
    tests = [path for path in sources("tests") if path.name.startswith("test_")]
    passed_over = [
        f"{path.relative_to(ROOT)}: norecursedirs has {pattern!r}"
        for path in tests
        for part in path.relative_to(ROOT).parts[:-1]
        for pattern in pytestconfig.getini("norecursedirs")
        if fnmatch.fnmatch(part, pattern)
    ]
    assert not passed_over
    names = [path.name for path in tests]
    assert not {name for name in names if names.count(name) > 1}


def test_files_that_are_no_python_are_in_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["tickrt"]
    shipped = {path for pattern in patterns for path in SOURCE.glob(pattern) if path.is_file()}
    others = {
        path
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != "."
    }
    assert others
    assert not sorted(name_of(path) for path in others - shipped)


def test_functions_have_few_parameters() -> None:
    """At most eight; kernels ten. Commands are their own documentation: Typer reads the names."""
    many = []
    for path in sources("src"):
        if part_of(path) == "cli" or name_of(path) in PARAMETERS_BY_PROTOCOL:
            continue
        most = 10 if path.name.endswith("kernels.py") else 8
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = node.args
                names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
                count = len([n for n in names if n not in ("self", "cls")])
                if count > most:
                    many.append(f"{name_of(path)}: {node.name} takes {count}, at most {most}")
    assert not many


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's code: without its signature and docstring."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_are_short() -> None:
    long = []
    for path in sources("src", "tests", "benchmarks"):
        text = path.read_text()
        shown = path.relative_to(ROOT)
        if len(text.splitlines()) > FILE_LINES:
            long.append(f"{shown}: {len(text.splitlines())} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = body_lines(node)
                if lines > FUNCTION_LINES:
                    long.append(f"{shown}: {node.name} has {lines} lines, at most {FUNCTION_LINES}")
    assert not long


def called_name(node: ast.expr) -> str:
    """``njit`` of ``@njit``, ``@njit(…)``, ``@numba.njit``."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_compiled_code_lives_in_kernel_files() -> None:
    outside = []
    for path in sources("src"):
        if path.name.endswith("kernels.py") or name_of(path) in COMPILED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = getattr(node, "decorator_list", [])
            if any(called_name(d) in COMPILERS for d in decorators):
                outside.append(f"{name_of(path)}: {getattr(node, 'name', '')}")
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(m.split(".")[0] in ("numba", "llvmlite") for m in modules):
                outside.append(f"{name_of(path)} imports {modules[0]}")
    assert not outside


def test_kernels_are_pure() -> None:
    """No exceptions, no I/O, no clock of the system, no printing in compiled files."""
    wrong = []
    for path in sources("src"):
        if not path.name.endswith("kernels.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Raise, ast.Try, ast.With, ast.AsyncFunctionDef)):
                wrong.append(f"{name_of(path)}:{node.lineno}: {type(node).__name__}")
            if isinstance(node, ast.Call) and called_name(node) in ("print", "open"):
                wrong.append(f"{name_of(path)}:{node.lineno}: {called_name(node)}")
            if isinstance(node, ast.Import):
                wrong += [
                    f"{name_of(path)} imports {alias.name}"
                    for alias in node.names
                    if alias.name.split(".")[0] in NOT_IN_KERNELS
                ]
    assert not wrong


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(p) for p in sources("src") if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(tickrt.__path__, "tickrt.")]
    return sorted(name for name in found if not name.endswith("__main__"))


def loaded(name: str) -> ModuleType | None:
    """The module; None where it needs what only an extra installs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        culprit = f"{error.name or ''} {error}"
        if not any(word in culprit for word in OPTIONAL):
            raise
        return None


def test_exported_names_exist() -> None:
    found = [module for module in map(loaded, modules()) if module is not None]
    assert not [
        f"{module.__name__}.{name}"
        for module in found
        for name in getattr(module, "__all__", [])
        if not hasattr(module, name)
    ]


def test_modules_with_public_names_export_them() -> None:
    """Every module but kernels and package pages says what is public."""
    silent = []
    for path in sources("src"):
        if path.name.endswith("kernels.py") or path.name in ("__init__.py", "__main__.py"):
            continue
        body = ast.parse(path.read_text()).body
        nodes = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        if any("register" in map(called_name, node.decorator_list) for node in nodes):
            continue  # rules: they are found by their registration
        defined = [node.name for node in nodes]
        assigned = {
            getattr(target, "id", "")
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
        }
        if "__all__" not in assigned and any(not name.startswith("_") for name in defined):
            silent.append(name_of(path))
    assert not silent


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_public_api(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module])


def test_packages_are_the_ones_of_the_design() -> None:
    packages = {m.name for m in pkgutil.iter_modules(tickrt.__path__) if m.ispkg}
    order = (
        "compile memory market simulation feeds feature engines runtime strategy risk execution "
        "config backtest observe report models training cli program host"
    )
    assert packages == set(order.split())


HEAVY = "numba llvmlite onnxruntime onnx torch hftbacktest numpy pydantic rich tensorrt cuda"
HEAVY += " pyarrow pandas polars"


# Typer itself loads rich and pydantic.
@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import tickrt", ""),
        ("import tickrt as tr; dir(tr); tr.TickrtError, tr.load_spec('light')", ""),
        ("import tickrt.errors, tickrt.cli", ""),
        ("from tickrt.cli import main; main(['--help'])", "rich pydantic"),
        ("from tickrt.cli import main; main(['run', '--help'])", "rich pydantic"),
    ],
)
def test_nothing_heavy_is_imported_early(code: str, allowed: str) -> None:
    probe = (
        f"{code}\nimport sys\nprint('LOADED', *[m for m in {HEAVY.split()} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = run.stdout.splitlines()[-1].split()[1:]
    assert set(loaded) <= set(allowed.split())


def test_importing_everything_leaves_numba_as_it_was() -> None:
    probe = (
        "import os, numba, pkgutil, importlib, tickrt\n"
        "before = dict(vars(numba.config)), numba.config.CACHE_DIR\n"
        f"names = {[n for n in modules() if not n.startswith('tickrt.training')]!r}\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: pass\n"
        "assert 'tickrt.runtime.session' in __import__('sys').modules\n"
        "assert (dict(vars(numba.config)), numba.config.CACHE_DIR) == before\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_every_code_has_its_exception() -> None:
    bad = [code for code in Code if code < 0]
    assert set(errors._TABLE) == set(bad)
    for code in bad:
        with pytest.raises(TickrtError, match=rf"^here: .*\({code.name}\)$") as caught:
            raise_code(code, "here")
        assert type(caught.value) is errors._TABLE[code][0]
    for code in (0, 1, 17):
        raise_code(code, "here")


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """The drawing at the top of errors.py names every exception, and each is exported."""
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, TickrtError)
    }
    assert kinds | {"Code", "raise_code"} == set(errors.__all__)
    drawing = (errors.__doc__ or "").split()
    assert kinds <= set(drawing)
