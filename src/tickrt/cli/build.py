"""``tickrt build``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli import keys
from tickrt.cli.common import Force, Json, Spec, complete_backend, complete_model
from tickrt.errors import BundleError, ConfigError
from tickrt.literals import CalibrationMethod, Precision

if TYPE_CHECKING:
    from tickrt.engines.build.request import BuildRequest

__all__ = ["build"]

_ENGINE, _NUMBERS, _CHECK = "The engine", "Precision", "Check"


def build(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A shipped model (see: tickrt model list) or an ONNX file.",
            autocompletion=complete_model,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle.")] = Path("model.bundle"),
    rebuild: Annotated[
        Path | None,
        typer.Option("--rebuild", help="Build this bundle's embedded ONNX again, for here."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="auto: what this machine can run; or by name: onnxruntime, native, resident, "
            "tensorrt, tensorrt_rtx, or one that was added.",
            autocompletion=complete_backend,
            rich_help_panel=_ENGINE,
        ),
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU architecture, without a GPU: 7.5, 8.0, 8.6, 8.9, 12.x; 9.0 for resident; "
            "repeat.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    engine_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="The interpreter that has TensorRT; default: this one. It runs as long as the "
            "build takes.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=MIN:OPT:MAX",
            help="Bounds of dynamic axes, e.g. rows=1:1:128; one per profile.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    memory_pool_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="MiB of workspace; default 512, attention 2048.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="T, where the model leaves it open.", rich_help_panel=_ENGINE),
    ] = None,
    builder_optimization_level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="More is slower to build.", rich_help_panel=_ENGINE),
    ] = None,
    sparse_weights: Annotated[
        bool | None,
        typer.Option("--sparse-weights", help="2:4 weights (checked).", rich_help_panel=_ENGINE),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option("--refit", help="Weights can be replaced.", rich_help_panel=_ENGINE),
    ] = None,
    version_compatible: Annotated[
        bool | None,
        typer.Option(
            "--version-compatible", help="Newer libraries can load it.", rich_help_panel=_ENGINE
        ),
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option(
            "--split/--no-split", help="Tick-split.", show_default="split", rich_help_panel=_ENGINE
        ),
    ] = None,
    stateful: Annotated[
        bool | None,
        typer.Option("--stateful", help="Trained with carried state.", rich_help_panel=_ENGINE),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(show_default="fp32", rich_help_panel=_NUMBERS)
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Hold in fp32: softmax, norm, head, cell, an operator, or a glob on layer names; "
            "repeat. Default: softmax, norm, head.",
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Event file: rows for calibration and parity.", rich_help_panel=_NUMBERS),
    ] = None,
    method: Annotated[
        CalibrationMethod | None,
        typer.Option(
            help="How calibration chooses ranges.", show_default="minmax", rich_help_panel=_NUMBERS
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Windows to calibrate on.",
            show_default="256",
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    spec: Spec = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest error that passes.", rich_help_panel=_CHECK),
    ] = None,
    allow_failed_parity: Annotated[
        bool, typer.Option("--allow-failed-parity", rich_help_panel=_CHECK)
    ] = False,
    embed: Annotated[
        bool,
        typer.Option("--embed/--no-embed", help="Keep the ONNX in it.", rich_help_panel=_CHECK),
    ] = True,
    encrypt: keys.Encrypt = None,
    sign: keys.Sign = None,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a model into one bundle: tick-split, precision, engine, parity, signature.

    [bold]Examples[/bold]

    \b
      tickrt build seed_lstm -o seed.bundle
      tickrt build seed_lstm -o seed.bundle --backend tensorrt --target 8.9 --precision fp16
      tickrt build seed_lstm -o s.bundle --backend tensorrt --engine-python /opt/trt/bin/python3.9
      tickrt build m.onnx -o m.bundle --precision int8 --calibrate btcusd.npz --spec light
      tickrt build m.onnx -o m.bundle --sign file:k.sign.key --encrypt env:DESK_KEY
      tickrt build --rebuild old.bundle -o new.bundle --target 8.6
    """
    from tickrt.cli.output import check_free
    from tickrt.engines.build.request import BuildRequest, rebuild_request

    check_free(out, force)
    changes: dict[str, Any] = {
        "backend": backend,
        "targets": tuple(target or ()),
        "engine_python": engine_python or "",
        "allow_failed_parity": allow_failed_parity,
        "embed": embed,
    }
    given: dict[str, Any] = {
        "precision": precision,
        "fp32_layers": tuple(keep) if keep else None,
        "method": method,
        "samples": samples,
        "profiles": tuple(profile) if profile else None,
        "workspace": memory_pool_limit << 20 if memory_pool_limit else None,
        "window": window,
        "level": builder_optimization_level,
        "sparse": sparse_weights,
        "refit": refit,
        "version_compatible": version_compatible,
        "split": split,
        "stateful": stateful,
        "tolerance": tolerance,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if rebuild is not None:
        if model is not None:
            raise ConfigError("name a model or --rebuild a bundle, not both")
        if given:
            raise ConfigError(
                f"{_flags(given)}: a rebuild takes these from the bundle: drop them, or build from "
                "the ONNX file"
            )
        manifest, content, encrypted = _embedded(rebuild, trust, key, allow_unsigned)
        origin = Path(f"{manifest.model.name}.onnx")
        if backend == "auto" and not target and _builds_here(manifest.builder.backend):
            changes["backend"] = manifest.builder.backend  # what it was, where that can be built
        request = replace(rebuild_request(manifest, origin, content), **changes)
        spec_here: str | Path | None = spec or manifest.model.spec
        encrypt = encrypt or (key if encrypted else None)
    else:
        from tickrt.models import find_model

        if model is None:
            raise ConfigError("name a shipped model (see: tickrt model list) or an ONNX file")
        path = Path(model)
        spec_here = spec
        if path.suffix.lower() not in (".uff", ".caffemodel", ".prototxt"):
            files = find_model(model)
            path, spec_here = files.onnx, spec or files.spec
        _check_heeded(backend, target or (), engine_python or "", given)
        request = BuildRequest(model=path, **changes, **given)
    _run(request, calibrate, spec_here, out, encrypt, sign, as_json)


_FLAGS = {
    "fp32_layers": "--keep",
    "profiles": "--profile",
    "workspace": "--memory-pool-limit",
    "level": "--builder-optimization-level",
    "sparse": "--sparse-weights",
}


def _flags(names: Iterable[str]) -> str:
    """Fields of `BuildRequest` as the options that set them."""
    return ", ".join(_FLAGS.get(name, "--" + name.replace("_", "-")) for name in names)


def _builds_here(backend: str) -> bool:
    """Whether a backend of that name is here and builds for this machine."""
    from tickrt import backends

    return backend in backends.names() and not backends.probe(backend).builds


def _check_heeded(backend: str, targets: Iterable[str], python: str, given: dict[str, Any]) -> None:
    """Options that the named backend has no use for are refused, not ignored.

    Raises:
        ConfigError: one was given, or there is no such backend.
    """
    from tickrt import backends

    names = ("profiles", "workspace", "level", "sparse", "refit", "version_compatible")
    asked = [name for name in names if given.get(name)]
    if backend == backends.AUTO or not asked:
        return
    heeded = backends.builder(backend, tuple(targets), python).options
    if wrong := [name for name in asked if name not in heeded]:
        raise ConfigError(
            f"{_flags(wrong)}: --backend {backend} has no use for it; drop it, or build with "
            "another one, such as --backend tensorrt"
        )


def _embedded(bundle: Path, trust: Any, key: Any, allow_unsigned: bool) -> tuple[Any, bytes, bool]:
    """A bundle's manifest, its original ONNX (in memory only), and whether it was encrypted.

    Raises:
        BundleError: there is none in it, or nobody vouches for it (nothing of it is parsed then).
    """
    from tickrt.engines.build.build import SOURCE
    from tickrt.engines.bundle.format import open_bundle

    trusted = keys.load_trust(trust)
    loaded = keys.load_encrypt(key)
    with open_bundle(bundle, trusted, loaded, allow_unsigned) as opened:
        if SOURCE not in [entry.name for entry in opened.entries]:
            raise BundleError(f"{bundle}: it was built with --no-embed; build from the ONNX file")
        return opened.manifest, opened.payload(SOURCE), opened.encrypted


def _run(
    request: BuildRequest,
    calibrate: Path | None,
    spec: str | Path | None,
    out: Path,
    encrypt: str | None,
    sign: str | None,
    as_json: bool,
) -> None:
    from tickrt.cli.output import emit
    from tickrt.cli.progress import bar, working
    from tickrt.cli.rows import find_spec, load_rows
    from tickrt.engines.build.build import build as build_bundle
    from tickrt.engines.build.build import write_built
    from tickrt.engines.graph.load import load_onnx, model_facts

    sealed, signer = keys.load_encrypt(encrypt), keys.load_sign(sign)
    rows, said = None, ""
    if calibrate is not None:
        onnx_model, sha256, _ = load_onnx(request.model, request.content)
        info = model_facts(onnx_model, sha256, request.model.stem)
        found = find_spec(spec, info.feature_hash, str(request.model))
        with working(f"rows of {calibrate.name}", as_json):
            rows, said = load_rows(calibrate, found), calibrate.name
        if request.window is None:
            request = replace(request, window=found.window)
    with bar("building", as_json) as report:
        built = build_bundle(
            request, rows, said, lambda role, phase, done, total: report(done, total)
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = write_built(built, out, sealed, signer)
    facts = {"path": str(out), "digest": digest, "bytes": out.stat().st_size, **built.report}
    facts |= {"signed": signer is not None, "encrypted": sealed is not None}
    emit(facts, as_json, show=lambda: show(facts))


def show(facts: dict[str, Any]) -> None:
    """The build report as tables."""
    from tickrt.cli.output import print_facts, print_table

    parity = {k: v for k, v in facts["parity"].items() if v not in (None, "")}
    graph = facts["gates"].get("graph_parity")
    graph = {k: v for k, v in graph.items() if v not in (None, "")} if graph else None
    arch = facts["gpu_arch"]
    print_facts(
        str(facts["path"]),
        {
            "digest": facts["digest"][:16],
            "bytes": facts["bytes"],
            "backend": f"{facts['backend']} {facts['version']}",
            **({"gpu_arch": arch} if arch else {}),
            "precision": facts["precision"],
            "parity": parity,
            **({"graph_parity": graph} if graph else {}),
            "reproducible": facts["reproducible"],
            "seconds": facts["seconds"],
        },
    )
    rows = []
    for engine in facts["engines"]:
        after = engine["layers_after"]
        rows.append(
            (
                engine["role"],
                f"{engine['bytes']:,}",
                str(engine["layers_before"]),
                "–" if after is None else str(after),
                ", ".join(f"{count} {kind}" for kind, count in engine["precision"].items()),
                f"{engine['seconds']:.2f}",
            )
        )
    columns = ("engine", "bytes", "layers before", "after", "precision", "seconds")
    print_table(columns, rows, indent=2)
