"""The model card: a model's figures (see `train`) as markdown. No number is written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tickrt.training.dataset import CLASSES

__all__ = ["write_card"]

_NAMES = {
    "model": "this model",
    "logistic_regression_queue_imbalance_same_weights": (
        "logistic regression on queue imbalance, the model's class weights"
    ),
    "logistic_regression_queue_imbalance_balanced": (
        "logistic regression on queue imbalance, balanced classes"
    ),
    "majority_class": "majority class",
}
_LIMITS = """\
- Trained on about six and a half minutes of one symbol on one night. It is here to measure latency
  with a realistic model and to test the path from tick to order; it is not a trading signal.
- Much of the skill is in rows made by trades (the tables by newest row): the feed tells of a trade
  some milliseconds before the depth update that shows the price it left behind. That move has
  happened at the exchange already and cannot be traded at the price in the book.
- ETH was recorded in the same minutes as the training data and moves with BTC: it shows that the
  inputs carry over to another symbol, not to another time.
- The parts of the split are minutes apart, from one market regime. Figures on another day would be
  lower.
- The epoch was chosen on the validation part, so the figures there flatter the model. The few
  recipes and seeds that were tried were compared there too, but their test figures were seen.
- Neighbouring windows overlap, so the effective number of test samples is far below the number of
  windows; differences of a few hundredths mean nothing.
- The loss weights classes by the inverse square root of their share: probabilities of *down* and
  *up* are larger than their frequencies. Set a policy's threshold from data.
- Inputs are in ticks and contracts and normalised with the training symbol's figures; on a symbol
  with another tick or contract value they have another distribution.
"""


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _results(part: dict[str, Any]) -> list[str]:
    rows = {"model": part["model"], **part["baselines"]}
    out = [
        "| | macro-F1 | MCC | accuracy | F1 down | F1 flat | F1 up |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, value in rows.items():
        f1 = " | ".join(f"{value['f1'][name]:.3f}" for name in CLASSES)
        out.append(
            f"| {_NAMES[key]} | {value['macro_f1']:.3f} | {value['mcc']:.3f} | "
            f"{value['accuracy']:.3f} | {f1} |"
        )
    out += ["", "| truth \\ predicted | down | flat | up |", "|---|---|---|---|"]
    for name, line in zip(CLASSES, part["model"]["confusion"], strict=True):
        out.append(f"| {name} | {line[0]} | {line[1]} | {line[2]} |")
    return out


def _by_row(part: dict[str, Any]) -> list[str]:
    out = ["| this model, newest row | windows | macro-F1 | MCC |", "|---|---|---|---|"]
    for key, value in part["by_row"].items():
        out.append(
            f"| {key.replace('_', ' ')} | {value['windows']} | {value['macro_f1']:.3f} | "
            f"{value['mcc']:.3f} |"
        )
    return out


def _verdict(part: dict[str, Any]) -> str:
    words = []
    for key, name in (("macro_f1", "macro-F1"), ("mcc", "MCC")):
        best = max(baseline[key] for baseline in part["baselines"].values())
        difference = part["model"][key] - best
        word = "above" if difference > 0 else "below" if difference < 0 else "equal to"
        words.append(f"{name} {abs(difference):.3f} {word}")
    return f"Beside the best baseline: {', '.join(words)}."


def _part(key: str, part: dict[str, Any]) -> list[str]:
    share = ", ".join(f"{name} {part['class_share'][name]:.3f}" for name in CLASSES)
    return [
        f"## {key.replace('_', ' ').capitalize()}",
        "",
        f"{part['symbol']}, {_time(part['from_ns'])} to {_time(part['to_ns'])} UTC, "
        f"{part['windows']} windows; classes: {share}. {_verdict(part)}",
        "",
        *_results(part),
        "",
        *_by_row(part),
        "",
    ]


def write_card(figures: dict[str, Any], path: Path) -> None:
    """Write the card of a model to `path`."""
    recipe, parts = figures["recipe"], figures["parts"]
    horizon = figures["horizon_ns"] // 1_000_000
    lines = [
        f"# {figures['name']}",
        "",
        f"LSTM {recipe['layers']}×{recipe['hidden']} over the last {figures['window']} rows of the "
        f"spec `{figures['spec']}` ({figures['width']} numbers a row) → probabilities of down, "
        f"flat and up of the mid price over the next {horizon} ms. "
        f"{figures['parameters']} parameters. "
        "Label: mid price then against mid price at the row; flat only if exactly equal.",
        "",
        f"Feature hash `{figures['feature_hash']}`. Largest difference of a probability between "
        f"torch and ONNX Runtime: {figures['torch_minus_onnxruntime']:.1e}.",
        "",
        f"Made by `python -m tickrt.training.train` (seed {recipe['seed']}, torch "
        f"{figures['made_with']['torch']}); this page and its numbers are written by it.",
        "",
        "## Data",
        "",
        "Binance COIN-M perpetuals as recorded in the examples of github.com/nkaz001/hftbacktest "
        f"(MIT licence): {parts['symbol']}, {_time(parts['session_ns'][0])} to "
        f"{_time(parts['session_ns'][1])} UTC, {parts['rows']} rows. Split by time 60/20/20; "
        "between parts at least one window plus the horizon is left out. Normalisation from the "
        "training part only. Chunks are mirrored (bid ↔ ask, up ↔ down) at random in training.",
        "",
        "| part | from | to | samples | down | flat | up |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("train", "validation", "test"):
        part = parts[name]
        share = " | ".join(f"{x:.3f}" for x in part["class_share"])
        lines.append(
            f"| {name} | {_time(part['from_ns'])} | {_time(part['to_ns'])} | "
            f"{part['samples']} | {share} |"
        )
    lines.append("")
    for key in sorted(figures["evaluation"], key=lambda k: (not k.startswith("test"), k)):
        lines += _part(key, figures["evaluation"][key])
    lines += ["## Known limits", "", _LIMITS]
    path.write_text("\n".join(lines), encoding="utf-8")
