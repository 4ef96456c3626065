"""Every TensorRT name and signature that our code uses exists in TensorRT 8.5, 10, 11 and RTX.

The sources are read, not run: an attribute on a variable named after a TensorRT class (`builder`,
`config`, …) is a use of that class. The bindings of `tensorrt` are loaded against empty stand-in
libraries, since their native libraries are not to be had on a machine like CI's. Those of 8.5 are
for Python 3.10 or older: TICKRT_ENGINE_PYTHON names an interpreter that has them.

What only some releases have is asked of them by name (`getattr`, `members`), and listed here.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tickrt.host.tensorrt import builder as tensorrt
from tickrt.host.tensorrt import plans, tactics, versions

CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "inspector": "EngineInspector",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "timing_cache": "ITimingCache",
}
RTX_ONLY = {
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "Runtime.get_engine_validity",
    "ComputeCapability",
}
# Asked for by name, or where something else says that it is there; not in 8.5.
LATER = {
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.progress_monitor",
    "IProgressMonitor",
}
# Members that are asked for by name: each is one of some release.
ASKED = {
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "BuilderFlag": (
        *("FP16", "BF16", "INT8", "FP8", "TF32", "REFIT", "SPARSE_WEIGHTS"),
        *("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"),
    ),
    "TacticSource": ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS"),
    "DataType": ("FLOAT", "HALF", "INT32", "INT64", "INT8", "UINT8", "BOOL"),
    "ParserError": ("node_name", "node_operator"),
    "Runtime": ("engine_host_code_allowed",),
    "OnnxParser": ("supports_operator",),
    "IBuilderConfig": ("get_tactic_sources", "set_tactic_sources", "builder_optimization_level"),
    "EngineInvalidityDiagnostics": ("MALFORMED_ENGINE",),
}
BINDINGS = {"tensorrt-10": "10.16.1.11", "tensorrt-11": "11.4.0.106"}
STANDINS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry
getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins
"""
PROBE = Path(__file__).parents[3] / "helpers" / "tensorrt_bindings_probe.py"


@dataclass(frozen=True)
class Use:
    """`path` within the module; `arguments` where it is called, `overrides` where it is defined."""

    path: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()
    parameters: int | None = None


def _dotted(node: ast.expr) -> str | None:
    """`trt.X.Y` → ``X.Y``; `config.flag` → ``IBuilderConfig.flag``; anything else: None."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not names:
        return None
    if node.id == "trt":
        ours = list(takewhile(lambda name: not name.startswith("__"), names))
        return ".".join(ours) or None
    return f"{CLASSES[node.id]}.{names[0]}" if node.id in CLASSES else None


def uses_in(source: str) -> set[Use]:
    """Every use of a TensorRT name in a module's source."""
    uses: set[Use] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and "__" not in ast.unparse(node.func):
            path = _dotted(node.func)
            if path is None:
                continue
            keywords = tuple(k.arg for k in node.keywords if k.arg)
            uses.add(Use(path, len(node.args), keywords))
        elif isinstance(node, ast.Attribute) and (path := _dotted(node)):
            uses.add(Use(path))
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if (path := _dotted(base)) is None:
                    continue
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name != "__init__":
                        count = len(method.args.args) - 1
                        uses.add(Use(f"{path}.{method.name}", parameters=count))
    return uses


MODULES = (tensorrt, plans, tactics, versions)
SOURCE = "".join(Path(str(m.__file__)).read_text(encoding="utf-8") for m in MODULES)
USES = sorted(uses_in(SOURCE), key=str)


def _install(version: str, folder: Path) -> None:
    """The bindings wheel alone, once per environment."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--target", str(folder), f"tensorrt-cu13-bindings=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        lines = (done.stderr.strip() or "?").splitlines()
        if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
            pytest.skip(f"tensorrt-cu13-bindings {version} is not to be had: {lines[-1]}")
        pytest.fail(done.stderr)


def _stand_in(folder: Path, major: str) -> None:
    """Libraries that hold the nine C functions which the bindings link to, and do nothing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in libraries")
    text = "\n".join(f"void *{name}(void) {{ return 0; }}" for name in STANDINS.split())
    (folder / "standin.c").write_text(text, encoding="utf-8")
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", str(folder / "standin.c"), f"-Wl,-soname,{name}"]
        subprocess.run([*command, "-o", str(folder / name)], check=True)


def probe(
    folder: Path, module: str, uses: list[Use], python: str = sys.executable
) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-W", "ignore", str(PROBE), str(folder), module],
        input=json.dumps(sorted({use.path for use in uses})),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
    )
    return dict(json.loads(done.stdout))


def fits(signature: str, use: Use) -> bool:
    """Whether a pybind11 signature takes the call (or is that of the overridden method)."""
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    parts = [p for p in re.split(r",\s*(?![^\[]*\])", inside) if p and not p.startswith("self")]
    needed = sum("=" not in part for part in parts)
    names = {part.split(":")[0].strip() for part in parts}
    if use.parameters is not None:
        return len(parts) == use.parameters
    given = (use.arguments or 0) + len(use.keywords)
    return needed <= given <= len(parts) and set(use.keywords) <= names


def check(answers: dict[str, Any], uses: list[Use]) -> list[str]:
    """What is wrong, use by use."""
    wrong = []
    for use in uses:
        signatures = answers[use.path]
        counted = use.arguments is not None or use.parameters is not None
        if signatures is None:
            wrong.append(f"{use.path}: does not exist")
        elif counted and signatures and not any(fits(line, use) for line in signatures):
            wrong.append(f"{use}: {signatures}")
    return wrong


def test_the_reader_finds_the_uses() -> None:
    paths = {use.path for use in USES}
    for path in (
        "Builder.build_serialized_network",
        "MemoryPoolType.WORKSPACE",
        "IBuilderConfig.set_memory_pool_limit",
        "IProgressMonitor.phase_start",
        "ILogger.log",
        "IExecutionContext.execute_async_v3",
        "OnnxParser",
        "IExecutionContext.set_tensor_address",
    ):
        assert path in paths
    assert Use("ITimingCache.serialize", 0) in USES
    made_up = uses_in("config.max_workspace_size = 1\ntrt.BuilderFlag.FP16\nbuilder.f(1, a=2)")
    assert made_up == {
        Use("IBuilderConfig.max_workspace_size"),
        Use("BuilderFlag.FP16"),
        Use("BuilderFlag"),
        Use("Builder.f", 1, ("a",)),
        Use("Builder.f"),
    }


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_names_and_signatures_of_tensorrt(name: str) -> None:
    version = BINDINGS[name]
    folder = Path(sys.prefix) / "share" / "tickrt-tests" / name
    if not (folder / "tensorrt_bindings").is_dir():
        _install(version, folder)
    _stand_in(folder, version.split(".")[0])
    common = [use for use in USES if not any(use.path.startswith(rtx) for rtx in RTX_ONLY)]
    found = probe(folder, "tensorrt_bindings", common)
    assert found["version"] == version
    assert check(found["answers"], common) == []
    gone = [Use("IBuilderConfig.max_workspace_size"), Use("Builder.build_cuda_engine")]
    assert len(check(probe(folder, "tensorrt_bindings", gone)["answers"], gone)) == 2


def test_names_and_signatures_of_tensorrt_rtx(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    found = probe(tmp_path, "tensorrt_rtx", USES)
    assert check(found["answers"], USES) == []
    assert not [path for path in RTX_ONLY if not any(u.path.startswith(path) for u in USES)]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An interpreter with TensorRT 8, and an empty folder."""
    python = os.environ.get("TICKRT_ENGINE_PYTHON", "")
    asked = [python, "-c", "import tensorrt; print(tensorrt.__version__)"]
    if not python or not subprocess.run(
        asked, capture_output=True, text=True, check=False
    ).stdout.startswith("8."):
        pytest.skip("TICKRT_ENGINE_PYTHON names no interpreter with TensorRT 8")
    return python, tmp_path_factory.mktemp("none")


def test_names_and_signatures_of_tensorrt_8(old: tuple[str, Path]) -> None:
    python, folder = old
    absent = RTX_ONLY | LATER
    uses = [use for use in USES if not any(use.path.startswith(path) for path in absent)]
    found = probe(folder, "tensorrt", uses, python)
    assert found["version"].startswith("8.")
    assert check(found["answers"], uses) == []
    later = [Use(path) for path in LATER]
    answers = probe(folder, "tensorrt", later, python)["answers"]
    assert set(answers.values()) == {None}


def test_what_is_asked_for_by_name_is_in_some_release(tmp_path: Path) -> None:
    uses = [Use(f"{where}.{name}") for where, names in ASKED.items() for name in names]
    missing = {use.path for use in uses}
    found = [("tensorrt_bindings", Path(sys.prefix) / "share" / "tickrt-tests" / "tensorrt-10")]
    found.append(("tensorrt_rtx", tmp_path))
    for module, folder in found:
        if module == "tensorrt_rtx":
            pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
        elif not (folder / module).is_dir():
            _install(BINDINGS["tensorrt-10"], folder)
        answers = probe(folder, module, uses)["answers"]
        missing -= {path for path, signatures in answers.items() if signatures is not None}
    assert missing == set()
    for use in uses:
        name = use.path.rpartition(".")[2]
        assert name in SOURCE or use.path.startswith("EngineInvalidity"), use.path
