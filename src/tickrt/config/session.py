"""The settings of a session and of its strategies, as frozen objects.

Entry points: `SessionConfig`, `StrategySettings`, the gateways, `parse_pace`. A setting that is a
table in a file is an object in Python; each object takes either. `tickrt config show` prints the
texts of the ``Attributes:`` below, so they are the reference of ``session.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from tickrt.backends import PREFERRED, check
from tickrt.config.checks import check_keys, read_settings, refuse
from tickrt.errors import ConfigError
from tickrt.execution.gateways.venue import VenueConfig
from tickrt.literals import Exchange, GatewayKind, PolicyKind, Weights
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import FallbackParams, MakerParams, TakerParams

__all__ = [
    "GATEWAYS",
    "POLICIES",
    "HftbacktestSettings",
    "NullSettings",
    "PaperSettings",
    "SessionConfig",
    "StrategySettings",
    "pace_text",
    "parse_pace",
    "policy_kind",
]

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Switch = Annotated[bool, Strict()]

POLICIES: dict[PolicyKind, type[TakerParams] | type[MakerParams]] = {
    "taker": TakerParams,
    "maker": MakerParams,
}


@dataclass(frozen=True)
class PaperSettings:
    """The paper gateway of `tickrt run`: it answers orders at once, from the book as it is."""

    kind: Literal["paper"] = "paper"


@dataclass(frozen=True)
class NullSettings:
    """Nobody answers: orders are taken and forgotten. To measure all the rest."""

    kind: Literal["null"] = "null"


@dataclass(frozen=True)
class HftbacktestSettings(VenueConfig):
    """hftbacktest as the venue of `tickrt backtest`, and what an inference is charged.

    Attributes:
        inference_latency_us: time charged for each inference, in µs; not set: what it takes in the
            backtest itself.
        inference_latency_report: a run's ``report.json``: times are drawn from what it measured.
    """

    kind: Literal["hftbacktest"] = "hftbacktest"
    exchange: Exchange = "whole"
    inference_latency_us: float | None = None
    inference_latency_report: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        latency, report = self.inference_latency_us, self.inference_latency_report
        if latency is not None and not 0 <= latency < 1e9:
            raise ConfigError(
                f"gateway.inference_latency_us: expected 0 … 1e9 microseconds, got {latency!r}"
            )
        if latency is not None and report is not None:
            raise ConfigError(
                "gateway.inference_latency_report: expected this or inference_latency_us, got both"
            )


Gateway = PaperSettings | NullSettings | HftbacktestSettings
GATEWAYS: dict[GatewayKind, type[Gateway]] = {
    "paper": PaperSettings,
    "null": NullSettings,
    "hftbacktest": HftbacktestSettings,
}


_SLOWEST, _FASTEST = 1e-3, 1e6
_SPEEDS = "0.001x … 1000000x"


def policy_kind(policy: TakerParams | MakerParams) -> PolicyKind:
    """The name of a policy's kind."""
    return "taker" if isinstance(policy, TakerParams) else "maker"


def _by_kind(value: object, kinds: Mapping[Any, type], default: str) -> Any:
    """A table with `kind` as the settings of that kind; objects are kept as they are."""
    if isinstance(value, tuple(kinds.values())):
        return value
    if not isinstance(value, Mapping):
        raise refuse("", f"expected a table, got {value!r}")
    kind = value.get("kind", default)
    if kind not in kinds:
        raise refuse(".kind", f"expected {' or '.join(kinds)}, got {kind!r}")
    return read_settings(kinds[kind], value, also=("kind",))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if isinstance(value, Mapping):
            check_keys(value, list(cls.model_fields))
        return value


class StrategySettings(_Frozen):
    """One strategy: the model it listens to, what it does, what it may do.

        tr.StrategySettings(model="light_lstm", policy=tr.MakerParams(), shadow=True)

    Attributes:
        name: for reports; not set: the policy's name.
        symbol: the symbol it trades; not set: the session's first.
        model: a shipped model's name, or the path of an ONNX file or a bundle.
        spec: a shipped spec's name or a path; not set: the one that the model was trained on.
        policy: what it does with the signal: kind = "taker" or "maker", and its parameters.
        fallback: the rule-based signal used while the model cannot be trusted.
        risk: the pre-trade limits.
        shadow: decide and record, but send nothing.
    """

    name: str | None = None
    symbol: str | None = None
    model: str = "seed_lstm"
    spec: str | None = None
    shadow: Switch = False
    policy: Annotated[
        TakerParams | MakerParams, BeforeValidator(lambda v: _by_kind(v, POLICIES, "taker"))
    ] = Field(default_factory=TakerParams)
    fallback: Annotated[
        FallbackParams, BeforeValidator(lambda v: read_settings(FallbackParams, v))
    ] = Field(default_factory=FallbackParams)
    risk: Annotated[RiskLimits, BeforeValidator(lambda v: read_settings(RiskLimits, v))] = Field(
        default_factory=RiskLimits
    )


class SessionConfig(_Frozen):
    """A session: recorded events in, orders out.

        quoting = tr.StrategySettings(model="light_lstm", policy=tr.MakerParams())
        tr.SessionConfig(data=(Path("btc.npz"),), strategies=(quoting,), pace=1.0)

    Attributes:
        data: event files, one per symbol.
        strategies: at least one; not set: one taker on `seed_lstm`.
        backend: what runs the models, by name: native (a model that it cannot run exactly runs in
            onnxruntime instead, and the report says why), onnxruntime, resident, tensorrt,
            onnxruntime-cuda, null, reference, or an added one.
        engine_python: the Python interpreter that has what the engines need, for backends that run
            them in a process of their own; not set: this one.
        allow_time_slicing: let several engines on one GPU take turns where there is no MPS; a tick
            may then wait 2.4 ms for its own.
        max_batch: where strategies run one model on many symbols, an engine host takes what is
            ready of them at once, up to so many rows. Not set: 128 for reference, where 1 gives
            each symbol a host; onnxruntime runs in the loop's own thread, and in a host where more
            than 1 is set; the others ignore it.
        weights: how native keeps large weight matrices: fp32 (exact), bf16 or int8 (sooner).
        threads: intra-op threads of onnxruntime; 1: the loop's own thread, as native always.
        split: run only what depends on the newest row on the path, where that is exact.
        stateful: the models were trained with carried state (needs `split`).
        deadline_us: an engine result that takes longer, in µs, is a fault: the fallback decides.
        trust: where the public keys are that a bundle's signature is checked with (``file:PATH``,
            ``env:NAME``, ``command:…``); never the keys themselves.
        bundle_key: where the key of encrypted bundles is.
        allow_unsigned: run bundles whose signature nobody verified.
        pace: ``max``, ``realtime`` or a speed such as ``10x``, relative to the recorded times.
        pin_cpu: pin the hot thread to this core.
        lock_memory: while it runs, keep all memory of the process out of swap (mlockall).
        realtime_priority: run the hot thread before everything else: SCHED_FIFO, 1 … 99. As with
            `lock_memory`, a run goes on without it where it is not permitted, and says so.
        healthy_needed: healthy results in a row that end a fallback.
        gateway: who answers the orders: kind = "paper" (`tickrt run`), "hftbacktest"
            (`tickrt backtest`) or "null" (nobody), and its settings.
        out: folder of the report; not set: a new one, ``out/<command>-<time>``.
    """

    data: tuple[Path, ...] = Field(min_length=1)
    out: Path | None = None
    pace: Annotated[Number, BeforeValidator(lambda v: _pace(v))] = Field(default=0.0, ge=0.0)
    pin_cpu: Whole | None = Field(default=None, ge=0)
    lock_memory: Switch = False
    realtime_priority: Whole | None = Field(default=None, ge=1, le=99)
    backend: Annotated[str, AfterValidator(lambda v: _backend(v))] = PREFERRED
    engine_python: Annotated[str, AfterValidator(lambda v: _python(v))] | None = None
    allow_time_slicing: Switch = False
    max_batch: Whole | None = Field(default=None, ge=1, le=128)
    weights: Weights = "fp32"
    threads: Whole = Field(default=1, ge=1, le=256)
    split: Switch = True
    stateful: Switch = False
    deadline_us: Number = Field(default=100_000.0, gt=0.0)
    healthy_needed: Whole = Field(default=32, ge=1)
    trust: tuple[str, ...] = ()
    bundle_key: str | None = None
    allow_unsigned: Switch = False
    gateway: Annotated[Gateway, BeforeValidator(lambda v: _by_kind(v, GATEWAYS, "paper"))] = Field(
        default_factory=PaperSettings
    )
    strategies: tuple[StrategySettings, ...] = Field(
        default_factory=lambda: (StrategySettings(),), min_length=1
    )

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, value: object) -> object:
        if isinstance(value, Mapping) and isinstance(value.get("data"), str | Path):
            return {**value, "data": (value["data"],)}
        return value

    @field_validator("strategies")
    @classmethod
    def _names(cls, strategies: tuple[StrategySettings, ...]) -> tuple[StrategySettings, ...]:
        """Names of their own: a report and its tables tell strategies apart by them."""
        seen: dict[str, int] = {}
        for i, name in enumerate(strategy.name for strategy in strategies):
            if name in seen:
                raise refuse(f"[{i}].name", f"{name!r} is strategies[{seen[name]}]'s already")
            if name is not None:
                seen[name] = i
        return strategies


def _backend(name: str) -> str:
    try:
        return check(name)
    except ConfigError as error:
        raise refuse("", str(error)) from None


def _python(name: str) -> str:
    if not name.strip():
        raise refuse("", "name an interpreter, or leave engine_python out for tickrt's own")
    return name


def _pace(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0 or _SLOWEST <= value < _FASTEST:
            return value
        raise refuse("", f"expected 0 (max) or a speed of {_SPEEDS}, got {value!r}")
    if not isinstance(value, str):
        return value
    try:
        return parse_pace(value)
    except ConfigError as error:
        raise refuse("", str(error)) from None


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
    if not _SLOWEST <= speed < _FASTEST:
        raise ConfigError(
            f"expected max, realtime or a speed of {_SPEEDS}, such as 10x, got {text!r}"
        )
    return speed


def pace_text(pace: float) -> str:
    """``max``, ``realtime`` or ``10x``: what `parse_pace` reads."""
    return {0.0: "max", 1.0: "realtime"}.get(pace, f"{pace:g}x")
