"""The numbers that a spec normalises with: how they are found, written and applied.

Entry points: `fit_spec` (events → a spec with a normalisation, as a file), `normalisation`,
`write_spec`, `normalised`, `plain`; `mirror_of` for the exchange of bid and ask.

Invariant: `normalised` of rows that the `plain` spec made is, bit for bit, what the running spec
makes.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import ConfigError
from tickrt.feature.rows import EventSource, replay_rows, source_of
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.files import write_file
from tickrt.market.instrument import Instrument

__all__ = [
    "Mirror",
    "fit_spec",
    "mirror_of",
    "normalisation",
    "normalised",
    "plain",
    "write_spec",
]

F4 = NDArray[np.float32]
I8 = NDArray[np.int64]


@dataclass(frozen=True)
class Mirror:
    """Exchange of bid and ask: column `i` of the mirrored row is ``sign[i] · row[source[i]]``.

    A mirrored window has the opposite label.
    """

    source: I8
    sign: F4

    def rows(self, rows: Any) -> Any:
        """Mirror rows [..., F] (numpy)."""
        return rows[..., self.source] * self.sign


_ODD = ("volume_signed", "order_flow_", "imbalance_", "microprice", "return_")


def mirror_of(spec: FeatureSpec) -> Mirror | None:
    """The spec's mirror; None if it has user columns, whose symmetry is not known."""
    if any(column.kind == "user" for column in spec.columns):
        return None
    place = {name: i for i, name in enumerate(spec.names)}
    swap = {"bid_": "ask_", "ask_": "bid_"}
    names = [swap.get(n[:4], n[:4]) + n[4:] for n in spec.names]
    return Mirror(
        source=np.array([place[n] for n in names], np.int64),
        sign=np.array([-1.0 if n.startswith(_ODD) else 1.0 for n in names], np.float32),
    )


def plain(spec: FeatureSpec) -> FeatureSpec:
    """The spec without normalisation and clip."""
    zero, one = (0.0,) * spec.width, (1.0,) * spec.width
    return dataclasses.replace(spec, mean=zero, std=one, clip=float("inf"))


def normalised(rows: F4, spec: FeatureSpec) -> F4:
    """Rows [n, F] of the `plain` spec as the running spec makes them (`feature.kernels._store`)."""
    inv_std = (1.0 / np.array(spec.std)).astype(np.float32)
    out = (rows - np.array(spec.mean, np.float32)) * inv_std
    clipped: F4 = np.clip(out, -spec.clip, spec.clip, dtype=np.float32)
    return clipped


def normalisation(rows: F4, mirror: Mirror | None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per column of `rows` (and of their mirror image).

    A column that hardly varies keeps std 1. Rounded to 7 digits, so that a file holds them exactly.
    """
    mean, square = rows.mean(0, np.float64), np.square(rows, dtype=np.float64).mean(0)
    if mirror is not None:
        mean = (mean + mirror.rows(mean)) / 2
        square = (square + square[mirror.source]) / 2
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    std[std < 1e-6] = 1.0
    return [float(f"{x:.7g}") for x in mean], [float(f"{x:.7g}") for x in std]


def write_spec(spec: FeatureSpec, mean: list[float], std: list[float], path: Path) -> FeatureSpec:
    """Write `spec` with a normalisation to `path`; its text above [normalisation] is kept.

    Returns:
        the spec as it reads now.

    Raises:
        ConfigError: the spec was not read from a file.
    """
    if spec.path is None:
        raise ConfigError(f"spec {spec.name}: it has no file: read it with load_spec")
    text = re.split(r"(?m)^\[normalisation\]$", spec.path.read_text(encoding="utf-8"))[0].rstrip()
    lines = [text, "", "[normalisation]"]
    for name, values in (("mean", mean), ("std", std)):
        lines.append(f"{name} = [")
        for i in range(0, len(values), 8):
            lines.append("  " + ", ".join(f"{v!r}" for v in values[i : i + 8]) + ",")
        lines.append("]")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, [("\n".join(lines) + "\n").encode()])
    return load_spec(path)


def fit_spec(
    events: EventSource,
    spec: FeatureSpec | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    share: float = 1.0,
    instrument: Instrument | str | None = None,
) -> FeatureSpec:
    """Write a copy of `spec` that normalises with mean and standard deviation of these rows.

    Where the spec has no columns of one's own, rows and their mirror image (bid and ask exchanged)
    count alike, so that the numbers favour no direction. A normalisation that the spec has already
    is replaced. Its hash changes: a model must be trained on the new spec.

        spec = tr.fit_spec("btc.npz", "my_columns.toml", "my.toml", share=0.6)

    Args:
        events: as for `features`.
        spec: a spec that was read from a file, a shipped one's name, or a path.
        path: the TOML file to write, missing folders are made; user columns' files are looked for
            beside it.
        share: use the first so much of the rows, above 0 to 1: those that the model will learn on.
        instrument: as for `features`.

    Returns:
        The new spec, as it reads.

    Raises:
        ConfigError: `share` is out of range, or the spec has no file.
        DataError, BookError, SpecError: as `features` raises them.
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"fit_spec: share: expected above 0 to 1, got {share!r}")
    found = spec if isinstance(spec, FeatureSpec) else load_spec(Path(spec))
    made = replay_rows(source_of(events, instrument), plain(found))
    used = max(1, int(len(made.rows) * share))
    return write_spec(found, *normalisation(made.rows[:used], mirror_of(found)), Path(path))
