"""What a session is made of, as frozen objects that are validated when they are made.

Entry point: `SessionConfig`. It is plain data: names and paths, no open files, nothing compiled.
The environment is read in one place, here: `TICKRT_DATA` (recorded market data, for tests).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tickrt.errors import ConfigError
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import FallbackParams, MakerParams, TakerParams

__all__ = ["Backend", "SessionConfig", "StrategySettings", "parse_pace"]

Backend = Literal["onnxruntime", "null"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StrategySettings(_Frozen):
    """One strategy: the model it listens to, what it does, what it may do.

    Attributes:
        name: for reports; None: the policy's name.
        symbol: the symbol it trades; None: the session's first.
        model: a shipped model's name, or the path of an ONNX file or a bundle.
        spec: a shipped spec's name or a path; None: the one that the model was trained on.
        policy: `TakerParams` or `MakerParams`.
        fallback: the rule-based signal used while the model cannot be trusted.
        risk: the pre-trade limits.
        shadow: decide and record, but send nothing.
    """

    name: str | None = None
    symbol: str | None = None
    model: str = "seed_lstm"
    spec: str | None = None
    policy: TakerParams | MakerParams = Field(default_factory=TakerParams)
    fallback: FallbackParams = Field(default_factory=FallbackParams)
    risk: RiskLimits = Field(default_factory=RiskLimits)
    shadow: bool = False


class SessionConfig(_Frozen):
    """A session: recorded events in, orders out.

    Attributes:
        data: event files, one per symbol.
        strategies: at least one.
        backend: what runs the models.
        threads: intra-op threads of the engine; 1: the loop's own thread.
        split: run only what depends on the newest row on the path, where that is exact.
        stateful: the models were trained with carried state (needs `split`).
        trust: where the public keys are that a bundle's signature is checked with (``file:PATH``,
            ``env:NAME``, ``command:…``); never the keys themselves.
        bundle_key: where the key of encrypted bundles is.
        allow_unsigned: run bundles whose signature nobody verified.
        pace: 0 = as fast as it goes; else the speed relative to the recorded times.
        deadline_us: an engine result that takes longer is a fault.
        healthy_needed: healthy results in a row that end a fallback.
        paper: answer the orders with the built-in paper gateway.
        pin_cpu: pin the hot thread to this core.
        tape_records: room for decisions, and as much for intents and for fills; None: two per batch
            of the data and strategy, at most 2²².
    """

    data: tuple[Path, ...] = Field(min_length=1)
    strategies: tuple[StrategySettings, ...] = Field(
        default_factory=lambda: (StrategySettings(),), min_length=1
    )
    backend: Backend = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=256)
    split: bool = True
    stateful: bool = False
    trust: tuple[str, ...] = ()
    bundle_key: str | None = None
    allow_unsigned: bool = False
    pace: float = Field(default=0.0, ge=0.0)
    deadline_us: float = Field(default=100_000.0, gt=0.0)
    healthy_needed: int = Field(default=32, ge=1)
    paper: bool = True
    pin_cpu: int | None = Field(default=None, ge=0)
    tape_records: int | None = Field(default=None, ge=1)

    @field_validator("data", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return (value,) if isinstance(value, str | Path) else value


def parse_pace(text: str) -> float:
    """``max`` → 0, ``realtime`` → 1, ``10x`` → 10.

    Raises:
        ConfigError: anything else.
    """
    if text == "max":
        return 0.0
    if text == "realtime":
        return 1.0
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = -1.0
    if not 0 < speed < 1e6:
        raise ConfigError(f"--pace: expected max, realtime or a speed such as 10x, got {text!r}")
    return speed
