"""Figures for a model card: the exported model on real windows, beside two baselines.

`evaluate` runs the ONNX file itself with ONNX Runtime, on full windows in time order, as the loop
would. The baselines are fitted on the training part: logistic regression on the imbalance of the
best quantities, with the model's class weights and with balanced ones, and the majority class. A
prediction is the most probable class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tickrt.engines.graph.ort import open_session
from tickrt.training.dataset import CLASSES, F4, I8, TrainingRows

__all__ = ["evaluate", "metrics"]

BATCH = 256


def metrics(labels: I8, predicted: I8) -> dict[str, Any]:
    """Macro-F1, Matthews correlation, accuracy, confusion matrix (rows: truth) of 3 classes.

    Matthews correlation for more than two classes as in Gorodkin (2004); 0 where it is undefined.
    """
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    truth, guess, right = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    total = int(confusion.sum())
    f1 = 2 * right / np.maximum(truth + guess, 1)
    covariance = float(right.sum()) * total - float(truth @ guess)
    spread = (float(total) ** 2 - float(guess @ guess)) * (float(total) ** 2 - float(truth @ truth))
    return {
        "macro_f1": round(float(f1.mean()), 4),
        "mcc": round(covariance / spread**0.5, 4) if spread > 0 else 0.0,
        "accuracy": round(float(right.sum()) / max(total, 1), 4),
        "f1": {name: round(float(x), 4) for name, x in zip(CLASSES, f1, strict=True)},
        "confusion": confusion.tolist(),
    }


def batches(rows: F4, samples: I8, window: int) -> Iterator[F4]:
    """Windows [≤ BATCH, T, F] that end at the given rows."""
    view = np.lib.stride_tricks.sliding_window_view(rows, window, axis=0)
    for first in range(0, len(samples), BATCH):
        chosen = samples[first : first + BATCH] - window + 1
        yield np.ascontiguousarray(view[chosen].swapaxes(1, 2))


def predict(onnx: Path, rows: F4, samples: I8, window: int, threads: int) -> F4:
    """Probabilities [n, 3] of the exported model at `samples`; `rows` are normalised."""
    session = open_session(onnx.read_bytes(), threads)
    out = [session.run(["probabilities"], {"rows": b})[0] for b in batches(rows, samples, window)]
    return np.concatenate(out)


class Baselines:
    """Queue-imbalance regressions and majority class, fitted once on training samples."""

    def __init__(self, session: TrainingRows, train: I8) -> None:
        from sklearn.linear_model import LogisticRegression

        x, y = session.imbalances[train, None], session.labels[train]
        share = np.maximum(np.bincount(y, minlength=3), 1) / len(y)
        root = {label: float(share[label] ** -0.5) for label in range(3)}
        self.regressions = {
            f"logistic_regression_queue_imbalance_{name}": LogisticRegression(
                class_weight=weights
            ).fit(x, y)
            for name, weights in (("same_weights", root), ("balanced", "balanced"))
        }
        self.majority = int(share.argmax())

    def figures(self, session: TrainingRows, samples: I8) -> dict[str, Any]:
        """Their metrics at `samples` of any session."""
        labels = session.labels[samples]
        x = session.imbalances[samples, None]
        out = {
            name: metrics(labels, regression.predict(x).astype(np.int64))
            for name, regression in self.regressions.items()
        }
        return out | {"majority_class": metrics(labels, np.full_like(labels, self.majority))}


def evaluate(
    session: TrainingRows,
    samples: I8,
    probabilities: F4,
    baselines: Baselines,
) -> dict[str, Any]:
    """One part's figures: what it is, the model, the baselines, the model by kind of row.

    A trade is often heard before the depth update that shows what it left of the book, so rows
    after trades are told apart from those without.

    Args:
        session: whose part it is.
        samples: rows at which the model was asked.
        probabilities: float32 [n, 3], its answers.
        baselines: fitted on the training part.
    """
    labels = session.labels[samples]
    guess, traded = probabilities.argmax(1), session.volumes[samples] > 0
    model = metrics(labels, guess)
    true = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)
    model["log_loss"] = round(float(-np.log(true).mean()), 4)
    model["mean_probability"] = [round(float(p), 4) for p in probabilities.mean(0)]
    share = np.bincount(labels, minlength=3) / len(labels)
    return {
        "symbol": session.symbol,
        "from_ns": int(session.times[samples[0]]),
        "to_ns": int(session.times[samples[-1]]),
        "windows": len(samples),
        "class_share": {name: round(float(x), 4) for name, x in zip(CLASSES, share, strict=True)},
        "model": model,
        "baselines": baselines.figures(session, samples),
        "by_row": {
            name: {"windows": int(chosen.sum()), **metrics(labels[chosen], guess[chosen])}
            for name, chosen in (("after_trades", traded), ("without_trades", ~traded))
        },
    }
