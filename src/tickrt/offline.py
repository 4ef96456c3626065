"""What is done with a model before it runs, for Python: split it, build it, open what was built.

Entry points: `split`, `build`, `open_bundle`: the tools of `engines` under names and with values
that are at hand (paths, `Features`, ``file:PATH`` of a key). ``tickrt split``, ``tickrt build`` and
``tickrt bundle`` do the same with progress and tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tickrt.engines.build import build as _build
from tickrt.engines.build.request import BuildRequest
from tickrt.engines.bundle import crypto
from tickrt.engines.bundle import format as _format
from tickrt.engines.bundle.format import Bundle
from tickrt.engines.bundle.manifest import Manifest
from tickrt.engines.graph.load import load_onnx, model_facts
from tickrt.engines.split.build import SplitResult
from tickrt.engines.split.build import split as _split
from tickrt.errors import FeatureMismatchError
from tickrt.feature.rows import Features
from tickrt.literals import Precision

__all__ = ["build", "open_bundle", "split"]


def split(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    stateful: bool = False,
    input: str | None = None,
    time_axis: int | None = None,
    window: int | None = None,
) -> SplitResult:
    """Split a windowed model into what the newest row needs and what can be done before it comes.

        result = tr.split("mine.onnx")
        print(result.why_not or [cost.share for cost in result.costs])

    Args:
        model: an ONNX file or model with one window input, [batch, T, F] or [batch, 1, T, F].
        stateful: the model was trained with carried state: `advance` then gives the next states
            from the last ones, and `pre` is only the warm-up.
        input: name of the window input; default: the only one.
        time_axis: axis of T; default: the one before the last.
        window: T, where the model leaves it open.

    Returns:
        The graphs and what they cost. A model that cannot be split is not an error: the result's
        `why_not` says why, and it runs whole.

    Raises:
        ModelError: the file is no ONNX model.
        SplitError: an argument does not fit the model.
    """
    graph = model if isinstance(model, onnx.ModelProto) else load_onnx(Path(model))[0]
    return _split(graph, stateful=stateful, input=input, time_axis=time_axis, window=window)


def build(
    model: str | os.PathLike[str] | BuildRequest,
    out: str | os.PathLike[str],
    *,
    rows: Features | NDArray[np.float32] | None = None,
    precision: Precision | None = None,
    backend: str | None = None,
    sign: str | None = None,
    encrypt: str | None = None,
) -> Manifest:
    """Build a bundle from an ONNX file: split, precision, engine, parity check, one file.

        manifest = tr.build("mine.onnx", "mine.bundle")
        print(manifest.parity.max_abs)

    Args:
        model: an ONNX file, or a `BuildRequest` where there is more to say.
        out: the bundle to write; an existing one is replaced, missing folders are made.
        rows: consecutive rows as the model sees them, for calibration and for the parity check:
            `Features`, or float32 [n, F]; None: random rows, and no calibration.
        precision: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``fp8``; None: the request's (fp32).
        backend: ``onnxruntime``, ``tensorrt``, ``tensorrt_rtx`` or ``auto``; None: the request's
            (auto: TensorRT where there is a GPU, else ONNX Runtime).
        sign: where the private key is: ``file:PATH``, ``env:NAME`` or ``command:…``; None: not
            signed.
        encrypt: where the AES key is, likewise; None: in the clear.

    Raises:
        ModelError: the model cannot be read, lowered or built; the message names the layer.
        BuildError: the parity check failed, or the backend is not installed.
        ConfigError, PrecisionError: the backend cannot do what is asked for.
        FeatureMismatchError: `rows` were made by another spec than the one of the model.
    """
    request = model if isinstance(model, BuildRequest) else BuildRequest(Path(model))
    request = replace(
        request,
        precision=precision or request.precision,
        backend=backend or request.backend,
    )
    sealed = crypto.load_aes_key(encrypt) if encrypt is not None else None
    signer = crypto.load_private_key(sign) if sign is not None else None
    array, said = rows if not isinstance(rows, Features) else None, ""
    if isinstance(rows, Features):
        array, said = rows.rows, f"{rows.symbol}, {len(rows)} rows"
        request = replace(request, window=request.window or rows.spec.window)
        _check_rows(request, rows)
    built = _build.build(request, array, said)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    _build.write_built(built, Path(out), sealed, signer)
    return built.manifest


def _check_rows(request: BuildRequest, rows: Features) -> None:
    """Refuse rows of another spec than the model was trained on."""
    graph, sha256, _ = load_onnx(request.model, request.content)
    trained_on = model_facts(graph, sha256, request.model.stem).feature_hash
    if trained_on is not None and trained_on != rows.spec.hash:
        raise FeatureMismatchError(
            f"{request.model}: trained on feature hash {trained_on[:12]}, the rows are of spec "
            f"{rows.spec.name} with {rows.spec.hash[:12]}: make them with the model's own spec"
        )


def open_bundle(
    path: str | os.PathLike[str] | bytes,
    *,
    trust: str | Sequence[str] = (),
    key: str | None = None,
    allow_unsigned: bool = False,
) -> Bundle:
    """Open a bundle: its digest and signature are verified before anything of it is parsed.

        with tr.open_bundle("mine.bundle", allow_unsigned=True) as bundle:
            print(bundle.manifest.model.feature_hash)

    Args:
        path: the file, or a bundle's bytes.
        trust: where the public keys are, one of which must have signed it: ``file:PATH``,
            ``env:NAME`` or ``command:…``.
        key: where the AES key is, to read encrypted payloads; not needed for the manifest.
        allow_unsigned: accept a bundle without a verified signature when nothing is trusted.

    Raises:
        BundleError: not a bundle, of another version, or not readable.
        TamperedError: damaged, forged, not signed, or signed by a key that is not trusted.
    """
    named = (trust,) if isinstance(trust, str) else trust
    return _format.open_bundle(
        path if isinstance(path, bytes) else Path(path),
        [crypto.load_public_key(source) for source in named],
        crypto.load_aes_key(key) if key is not None else None,
        allow_unsigned,
    )
