"""Rows of an event file as a model sees them: for calibration, parity and training.

Entry points: `load_rows`, `feature_rows` (with times, mids and labels), `find_spec`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tickrt.errors import ConfigError, FeatureMismatchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tickrt.feature.spec import FeatureSpec

__all__ = ["FeatureRows", "feature_rows", "find_spec", "load_rows"]


def find_spec(spec: str | Path | None, feature_hash: str | None, model: str) -> FeatureSpec:
    """The feature spec to make rows with.

    Args:
        spec: named by the user, or lying beside the model, or the model's own shipped one.
        feature_hash: what the model says it was trained on; None: it does not say.
        model: for the message.

    Raises:
        ConfigError: none is known.
        FeatureMismatchError: it is not the one that the model was trained on.
    """
    from tickrt.feature.spec import load_spec

    if spec is None:
        raise ConfigError(f"{model}: rows need its feature spec: name it with --spec")
    found = load_spec(spec)
    if feature_hash is not None and found.hash != feature_hash:
        raise FeatureMismatchError(
            f"{model}: trained on feature hash {feature_hash[:12]}, "
            f"spec {found.name} has {found.hash[:12]}; name the model's own spec with --spec"
        )
    return found


class FeatureRows(NamedTuple):
    """The rows of one symbol in time order.

    Attributes:
        rows: float32 [n, F], normalised as `spec` says.
        time_ns: int64 [n].
        mid: float64 [n], in ticks.
        label: int64 [n]: 0 down, 1 flat, 2 up over the horizon; −1 where the file ends before it.
        complete: bool [n]: its window of T rows has no reset in it.
    """

    rows: npt.NDArray[np.float32]
    time_ns: npt.NDArray[np.int64]
    mid: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    complete: npt.NDArray[np.bool_]


def feature_rows(data: Path, spec: FeatureSpec, horizon_ns: int) -> FeatureRows:
    """Play an event file of one symbol through the book and the spec.

    Raises:
        DataError: the file cannot be used.
        BookError: the book refused an event.
    """
    from tickrt.training.dataset import load_session
    from tickrt.training.train import normalised

    made = load_session(data, spec, horizon_ns)
    rows = normalised(made.rows, spec)
    return FeatureRows(rows, made.times, made.mids, made.labels, made.complete)


def load_rows(data: Path, spec: FeatureSpec) -> npt.NDArray[np.float32]:
    """All rows of an event file of one symbol, normalised: float32 [n, F].

    Raises:
        DataError: the file cannot be used.
    """
    return feature_rows(data, spec, 0).rows
