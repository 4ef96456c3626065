"""Every fixed set of names that options and settings choose from, once.

They are `Literal` types: the command line lists them in ``--help``, the configuration checks them,
and the code that acts on them is checked by mypy. What can be extended by the user or by another
package (models, specs, backends) is not here.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "CalibrationMethod",
    "CaptureKind",
    "Exchange",
    "GatewayKind",
    "OnGap",
    "PolicyKind",
    "Precision",
    "QueueModel",
    "Weights",
]

PolicyKind = Literal["taker", "maker"]
GatewayKind = Literal["paper", "null", "hftbacktest"]
# How our place in a queue advances when quantity before us is cancelled; hftbacktest's names.
QueueModel = Literal[
    "risk_adverse", "log_prob", "log_prob2", "power_prob", "power_prob2", "power_prob3"
]
# Whether the simulated exchange fills an order in part.
Exchange = Literal["partial", "whole"]

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
# How the native backend keeps large weight matrices that are read on the path.
Weights = Literal["fp32", "bf16", "int8"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]

CaptureKind = Literal["auto", "binance", "binance_cm", "binance_usdm", "gdax"]
OnGap = Literal["error", "resync"]
