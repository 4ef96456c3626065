"""``import tickrt as tr``: its names, their signatures, their examples, and that it stays light.

After a change that is meant: ``python tests/cpu/test_face.py`` writes `face.txt` anew.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import tickrt as tr
from helpers.sessions import market_file, tiny_model

RECORD = Path(__file__).with_name("face.txt")
FACE = Path(tr.__file__)
NAMES = [name for name in tr.__all__ if not name.startswith("__")]


def signature(value: Any) -> str:
    """Of a function or class; of settings, their fields, as their class writes them."""
    if hasattr(value, "model_fields"):
        fields = value.__annotations__
        return f"({', '.join(f'{name}: {fields[name]!r}' for name in value.model_fields)})"
    return str(inspect.signature(value))


def methods(value: type) -> Iterator[tuple[str, str]]:
    """A class's own public methods and properties."""
    for name in sorted(dir(value)):
        owner = next((c for c in value.__mro__ if name in vars(c)), value)
        if name.startswith("_") or not owner.__module__.startswith("tickrt"):
            continue
        found = inspect.getattr_static(value, name)
        if isinstance(found, (property, cached_property)):
            get = found.fget if isinstance(found, property) else found.func
            yield name, f" -> {get.__annotations__['return']!r}"
        elif isinstance(found, classmethod):
            yield name, signature(getattr(value, name))
        elif inspect.isfunction(found):
            yield name, signature(found)


def face() -> str:
    """Every name with its signature, one a line; methods below their class."""
    lines = []
    for name in NAMES:
        value = getattr(tr, name)
        if not inspect.isclass(value):
            lines.append(f"def {name}{signature(value)}")
        elif issubclass(value, Exception):
            lines.append(f"class {name}")
        else:
            lines.append(f"class {name}{signature(value)}")
            lines += [f"    {method}{text}" for method, text in methods(value)]
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_the_ones_on_record() -> None:
    assert face().splitlines() == RECORD.read_text(encoding="utf-8").splitlines()


def test_names_types_and_modules_agree() -> None:
    """`__all__`, the table of modules, and what type checkers read."""
    typed = {
        alias.name: node.module
        for part in ast.parse(FACE.read_text(encoding="utf-8")).body
        if isinstance(part, ast.If)
        for node in part.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == tr._MODULES
    assert tr.__all__ == sorted([*typed, "__version__"])
    assert dir(tr) == tr.__all__
    with pytest.raises(AttributeError, match="module 'tickrt' has no attribute 'featurs'"):
        tr.featurs  # noqa: B018


SHADOWS = """
import importlib, pkgutil
import tickrt as tr
if {before}:
    first = {{name: getattr(tr, name) for name in tr.__all__}}
for module in pkgutil.walk_packages(tr.__path__, "tickrt."):
    try:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    except ImportError as error:
        if not any(word in str(error) for word in ("torch", "sklearn")):
            raise
import types
for name in tr.__all__:
    value = getattr(tr, name)
    assert not isinstance(value, types.ModuleType), name
    assert not {before} or value is first[name], name
"""


@pytest.mark.parametrize("before", [True, False])
def test_no_module_takes_the_place_of_a_name(before: bool) -> None:
    """Importing ``tickrt.x.y`` sets ``tickrt.x``: whatever is imported, and when."""
    code = SHADOWS.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


USER = """
from pathlib import Path
import tickrt as tr

data: tr.Features = tr.features("btc.npz", "light", horizon_ns=1)
config = tr.SessionConfig(data=(Path("btc.npz"),), strategies=(tr.StrategySettings(),))
with tr.Session(config) as session:
    orders: int = session.run().orders
tr.split("mine.onnx").why_not.upper()
tr.features("btc.npz")
tr.Ring.create(None, capacity="large")
tr.nothing
"""


@pytest.mark.slow
def test_type_checkers_see_everything(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "user.py"]
    done = subprocess.run(
        [*command, "--cache-dir", str(FACE.parents[2] / ".mypy_cache")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(FACE.parents[1])},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    assert [line.split(" error: ")[1].split("  [")[0] for line in found] == [
        'Missing positional argument "spec" in call to "features"',
        'Argument "capacity" to "create" of "Ring" has incompatible type "str"; expected "int"',
        'Module has no attribute "nothing"',
    ]


def example(name: str) -> str:
    """The indented block of a docstring, before its sections."""
    text = inspect.getdoc(getattr(tr, name)) or ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(("Args:", "Attributes:", "Raises:", "Returns:")):
            break
        if line.startswith("    ") or (lines and not line):
            lines.append(line)
        elif lines and lines[-1]:
            break
    return textwrap.dedent("\n".join(lines)).strip()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("desk")
    market_file(folder / "btc.npz", 300)
    light = tr.load_spec("light")
    assert light.path is not None
    (folder / "my_columns.toml").write_text(light.path.read_text(encoding="utf-8"))
    (folder / "my.toml").write_text(light.path.read_text(encoding="utf-8"))
    (folder / "session.toml").write_text('data = ["btc.npz"]\n')
    tiny_model(light, folder / "mine.onnx")
    tr.build(folder / "mine.onnx", folder / "mine.bundle")
    return folder


# Why they are shown and not run here.
ELSEWHERE = {
    "Gateway": "two processes: docs/howto-gateway.md, and tests/cpu/execution/gateways",
    "convert": "needs captures: tests/cpu/feeds/captures",
}


MADE_BY = {"Features": "features", "FeatureSpec": "load_spec", "EventFile": "load_events"}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_shows_an_example_that_runs(
    name: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = example(name)
    code = compile(text, name, "exec")
    assert f"{MADE_BY.get(name, name)}(" in text or f"{name}." in text or name == "TickrtError"
    if name in ELSEWHERE:
        return
    given: dict[str, Any] = {"tr": tr, "Path": Path}
    if name == "export_onnx":
        torch = pytest.importorskip("torch", exc_type=ImportError)
        flat = torch.nn.Flatten()
        given |= {"torch": torch, "network": torch.nn.Sequential(flat, torch.nn.Linear(2800, 3))}
    monkeypatch.chdir(desk)
    exec(code, given)


def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the package itself, as `help(tickrt)` shows it."""
    monkeypatch.chdir(tmp_path)
    text = textwrap.dedent((tr.__doc__ or "").split("package:\n\n")[1].split("\n\n`import")[0])
    exec(compile(text.replace("seconds=60", "seconds=5"), "tickrt", "exec"), {"Path": Path})
    assert (tmp_path / "sim.npz").is_file()


if __name__ == "__main__":
    RECORD.write_text(face(), encoding="utf-8")
    print(RECORD.read_text(encoding="utf-8"))
