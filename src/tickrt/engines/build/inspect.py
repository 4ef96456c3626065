"""What is in a bundle, whether it is sound, and how two differ.

Entry points: `describe` (manifest as plain data, no key needed), `verify` (everything that can be
checked on this machine), `verify_on_target` (parity where the engine runs), `diff`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tickrt import backends
from tickrt.engines.build.build import SOURCE, engine_parity, largest_batch
from tickrt.engines.build.lower import split_graphs
from tickrt.engines.build.parity import windows_of
from tickrt.engines.build.request import rebuild_request
from tickrt.engines.bundle.compat import check_here, runs_in_host
from tickrt.engines.bundle.crypto import AesKey, PublicKey
from tickrt.engines.bundle.format import Bundle, open_bundle
from tickrt.engines.bundle.machine import Here
from tickrt.engines.bundle.manifest import Manifest, Parity
from tickrt.engines.bundle.toolchain import EngineOpener
from tickrt.engines.graph.check import ONNX
from tickrt.engines.graph.interface import Array, Run
from tickrt.engines.graph.load import parse_onnx
from tickrt.errors import (
    BuildError,
    BundleError,
    ConfigError,
    HostError,
    IncompatibleError,
    TickrtError,
)

__all__ = ["Check", "describe", "diff", "verify", "verify_on_target"]

_WINDOWS = 256


@dataclass(frozen=True)
class Check:
    """One thing that was checked: `result` is ``ok``, ``failed``, ``no`` (the bundle is sound, but
    not for this machine) or ``not checked``; and why."""

    what: str
    result: str
    why: str = ""


def describe(path: Path) -> dict[str, Any]:
    """A bundle as plain data: manifest, digest, payload table, who signed. Needs no key.

    Raises:
        BundleError: not a bundle, or damaged.
    """
    with open_bundle(path, allow_unsigned=True) as bundle:
        return {
            "path": str(path),
            "bytes": path.stat().st_size,
            "digest": bundle.digest,
            "signed_by": bundle.key_id,
            "encrypted": bundle.encrypted,
            "payloads": [
                {"name": e.name, "bytes": e.size, "sha256": e.sha256} for e in bundle.entries
            ],
            "manifest": bundle.manifest.model_dump(mode="json"),
        }


def _try(what: str, call: Any) -> Check:
    try:
        call()
    except TickrtError as error:
        return Check(what, "failed", str(error))
    return Check(what, "ok")


def verify(
    path: Path,
    trust: Sequence[PublicKey] = (),
    key: AesKey | None = None,
    here: Here | None = None,
    allow_unsigned: bool = False,
    python: str = "",
) -> list[Check]:
    """Check everything that can be checked here, and say what could not be.

    Args:
        path: the bundle.
        trust: public keys; none: the signature is not checked.
        key: decrypts; without it an encrypted bundle's payloads are only checked as stored.
        here: the machine; None: this one.
        allow_unsigned: load the engines although nobody vouches for them.
        python: the interpreter that has the engines' library; empty: ours.

    Raises:
        BundleError, TamperedError: the file cannot even be opened.
    """
    checks: list[Check] = []
    with open_bundle(path, trust, key, allow_unsigned=not trust) as bundle:
        checks.append(Check("digest", "ok"))
        if trust:
            checks.append(Check("signature", "ok", f"by {(bundle.signed_by or '')[:16]}"))
        else:
            why = "no trusted key was named" if bundle.key_id else "not signed"
            checks.append(Check("signature", "not checked", why))
        checks.append(_try("payloads", bundle.verify))
        readable = not bundle.encrypted or key is not None
        try:
            check_here(bundle.manifest, str(path), here, python)
            why = "but for the GPU: its host compares that when it loads"
            why = why if runs_in_host(bundle.manifest) else ""
            checks.append(Check("compatible with this machine", "ok", why))
        except (IncompatibleError, HostError) as error:
            checks.append(Check("compatible with this machine", "no", str(error)))
        if checks[2].result == "ok":
            vouched = bool(trust) or allow_unsigned
            checks.extend(_engines(bundle, readable, vouched, python))
    parity = bundle.manifest.parity
    result = {"passed": "ok", "failed": "failed"}.get(parity.status, "not checked")
    checks.append(Check("parity at build", result, parity.reason))
    return checks


def _engines(bundle: Bundle, readable: bool, vouched: bool, python: str) -> list[Check]:
    checks = []
    opened = _Openers(python)
    for engine in bundle.manifest.engines:
        what = f"engine {engine.role}"
        if not vouched:  # no payload byte reaches a deserialiser before the signature is checked
            why = "nobody vouches for it: name a key with --trust, or --allow-unsigned"
            checks.append(Check(what, "not checked", why))
        elif not readable:
            checks.append(Check(what, "not checked", "encrypted, and no key was named"))
        else:
            data = bundle.payload(engine.payload)
            checks.append(_engine(what, engine.format, data, opened))
    return checks


class _Openers:
    """What opens engines, by their format, each made once: ONNX is every machine's, others are
    called by backend, under that interpreter."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._made: dict[str, EngineOpener] = {}

    def of(self, format_: str) -> EngineOpener:
        """Raises BuildError, ConfigError, HostError: there is none here."""
        if format_ not in self._made:
            name, python = (backends.DEFAULT, "") if format_ == ONNX else (format_, self._python)
            self._made[format_] = backends.opener(name, python)
        return self._made[format_]


def _engine(what: str, format_: str, data: bytes, opened: _Openers) -> Check:
    try:
        return Check(what, *opened.of(format_).check(data))
    except (BuildError, ConfigError, HostError) as error:  # not installed, or not known here
        return Check(what, "not checked", str(error))


def verify_on_target(
    path: Path,
    rows: Array,
    data: str,
    trust: Sequence[PublicKey] = (),
    key: AesKey | None = None,
    allow_unsigned: bool = False,
    python: str = "",
) -> tuple[Parity, Manifest, dict[str, bytes]]:
    """The parity check on the machine that the bundle was built for.

    Args:
        path: the bundle; it must hold the original ONNX.
        rows: float32 [n, F], consecutive, as the model sees them.
        data: what the rows are.
        trust, key, allow_unsigned: as for `open_bundle`.
        python: the interpreter that has the engines' library; empty: ours.

    Returns:
        the figures, the manifest with them in it, and the payloads: `write_bundle` makes the
        verified bundle of these.

    Raises:
        BundleError: no original in it, or it cannot be opened.
        IncompatibleError: this is not the machine.
    """
    with open_bundle(path, trust, key, allow_unsigned) as bundle:
        manifest = bundle.manifest
        check_here(manifest, str(path), python=python)
        formats, opened = {engine.format for engine in manifest.engines}, _Openers(python)
        reasons = [opened.of(format_).why_not_here(manifest.builder) for format_ in formats]
        if why := next(filter(None, reasons), ""):
            raise IncompatibleError(f"{path}: cannot run here: {why}")
        names = [entry.name for entry in bundle.entries]
        if SOURCE not in names:
            raise BundleError(
                f"{path}: it does not hold the original ONNX to compare with; build it without "
                "--no-embed"
            )
        payloads = {name: bundle.payload(name) for name in names}
    request = rebuild_request(manifest, path)
    whole = {engine.role for engine in manifest.engines} == {"full"}
    parts = split_graphs(parse_onnx(payloads[SOURCE], str(path)), request, whole)
    runs: dict[str, Run] = {}
    for engine in manifest.engines:
        runs[engine.role] = opened.of(engine.format).runner(payloads[engine.payload])
    if not parts.window:
        raise BundleError(f"{path}: the model leaves its time axis open; rebuild with --window")
    windows = windows_of(np.asarray(rows, np.float32), parts.window, _WINDOWS)
    tolerance = manifest.parity.tolerance or 0.0
    batch = largest_batch([e for e in manifest.engines if e.role != "advance"])
    parity = engine_parity(parts, runs, windows, tolerance, data, batch)
    if manifest.parity.status == "passed":  # what ran in place of the engines does so again
        parity = parity.model_copy(update={"reason": parity.reason or manifest.parity.reason})
    return parity, manifest.model_copy(update={"parity": parity}), payloads


def _flat(value: Any, path: str, out: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _flat(item, f"{path}.{key}" if path else str(key), out)
    elif isinstance(value, list):
        named = all(isinstance(item, Mapping) and {"role", "name"} & set(item) for item in value)
        for number, item in enumerate(value):
            key = item.get("role") or item.get("name") if named else number
            _flat(item, f"{path}[{key}]", out)
        if not value:
            out[path] = []
    else:
        out[path] = value


def diff(a: Path, b: Path) -> list[tuple[str, Any, Any]]:
    """What differs between two bundles: (field, in A, in B), in the order of the fields.

    A field that one side lacks is None there.

    Raises:
        BundleError: one is not a bundle, or damaged.
    """
    sides: list[dict[str, Any]] = []
    for path in (a, b):
        with open_bundle(path, allow_unsigned=True) as bundle:
            bundle.verify()  # the manifests say what the payloads should be
        facts = describe(path)
        del facts["path"]
        flat: dict[str, Any] = {}
        _flat(facts, "", flat)
        sides.append(flat)
    left, right = sides
    fields = [*left, *(field for field in right if field not in left)]
    return [
        (field, left.get(field), right.get(field))
        for field in fields
        if left.get(field) != right.get(field)
    ]
