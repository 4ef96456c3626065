"""What a bundle says about itself: the manifest, readable without any key.

Entry points: `Manifest` and its parts; `Manifest.to_bytes` gives the canonical JSON that is hashed
and signed, `Manifest.from_bytes` reads it back.

Invariants: canonical JSON (sorted keys, no spaces, UTF-8), so equal manifests have equal bytes;
nothing in it depends on the time or the machine's name, so equal builds have equal manifests.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from tickrt.engines.graph.interface import ModelFacts, Part, TensorInfo
from tickrt.errors import BundleError
from tickrt.literals import CalibrationMethod, Precision

__all__ = ["Builder", "Calibration", "EngineInfo", "Manifest", "Parity"]

Role = Literal["full", "pre", "step", "advance"]


class Builder(Part):
    """What built the engines, and for what they were built; loading elsewhere is refused.

    `gpu_arch` are compute capabilities such as ``8.6``; empty for engines that run on the CPU.
    `driver` is the CUDA driver's version where the build used a GPU. `backend` and `library` are
    names of `tickrt.backends`: the family, and what built them.
    """

    backend: str
    library: str
    version: str
    gpu_arch: tuple[str, ...] = ()
    driver: str | None = None
    platform: str
    reproducible: str
    options: dict[str, Any] = Field(default_factory=dict)


class Calibration(Part):
    """How INT8 or FP8 scales came about; `scales` by ``role:tensor``."""

    method: CalibrationMethod
    samples: int
    rows_sha256: str
    scales: dict[str, float]


class Parity(Part):
    """The engine beside the original ONNX in float32, on the same rows.

    Errors are absolute, on the outputs; `kl_*` is the Kullback-Leibler divergence in nats.
    """

    status: Literal["passed", "failed", "not run here"]
    reason: str = ""
    rows: int = 0
    data: str = ""
    max_abs: float | None = None
    mean_abs: float | None = None
    argmax_agreement: float | None = None
    kl_max: float | None = None
    kl_mean: float | None = None
    tolerance: float | None = None


class EngineInfo(Part):
    """One engine of the bundle and the payload that holds it."""

    role: Role
    payload: str
    format: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], ...] = ()
    layers_before: int = 0
    layers_after: int | None = None
    precision: dict[str, str] = Field(default_factory=dict)


class Manifest(Part):
    """Everything that can be known of a bundle without its keys."""

    format: Literal[1] = 1
    name: str
    tickrt: str
    model: ModelFacts
    builder: Builder
    precision: Precision
    keep: tuple[str, ...] = ()
    engines: tuple[EngineInfo, ...]
    calibration: Calibration | None = None
    parity: Parity
    split: dict[str, Any] | None = None
    gates: dict[str, Any] = Field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The canonical JSON: equal manifests give equal bytes."""
        return json.dumps(
            self.model_dump(mode="json"),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        ).encode()

    @property
    def digest(self) -> bytes:
        """SHA-256 of `to_bytes`: the associated data of every encrypted payload."""
        return hashlib.sha256(self.to_bytes()).digest()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: not JSON, or a field is missing, unknown or of a wrong type; names it.
        """
        try:
            decoded = json.loads(data)
        except (ValueError, RecursionError):
            raise BundleError(f"{where}: the manifest is not JSON") from None
        known = decoded.get("format") if isinstance(decoded, dict) else None
        if known != 1:
            raise BundleError(f"{where}: manifest format {known!r}; this tickrt reads format 1")
        try:
            return cls.model_validate(decoded)
        except ValidationError as error:
            first = error.errors()[0]
            path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
            raise BundleError(f"{where}: manifest ${path}: {first['msg']}") from None

    def engine(self, role: str) -> EngineInfo | None:
        """The engine of that role, or None."""
        return next((e for e in self.engines if e.role == role), None)
