"""Rows of an event file as a model sees them, for calibration and parity.

Entry points: `load_rows`, `find_spec`. The rows are made by `feature.rows`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tickrt.errors import ConfigError, FeatureMismatchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tickrt.feature.spec import FeatureSpec

__all__ = ["find_spec", "load_rows"]


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


def load_rows(data: Path, spec: FeatureSpec) -> npt.NDArray[np.float32]:
    """All rows of an event file of one symbol, normalised: float32 [n, F].

    Raises:
        DataError: the file cannot be used.
    """
    from tickrt.feature.rows import features

    return features(data, spec).rows
