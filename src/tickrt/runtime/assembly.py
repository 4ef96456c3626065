"""From a configuration to the parts of a session: streams, engines, strategies, wired up.

Entry point: `assemble(config, files)`. Strategies that use the same (symbol, spec) share a
stream, those that also use the same model share an engine; everything is ordered so that whoever
listens to one thing lies side by side (`state.Wiring`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tickrt import backends
from tickrt.config import NullSettings, SessionConfig, StrategySettings
from tickrt.config.session import policy_kind
from tickrt.engines.graph.check import check_spec
from tickrt.errors import ConfigError
from tickrt.execution.gateways.gateway import (
    GatewayContext,
    GatewayLike,
    GatewayMaker,
    NullGateway,
)
from tickrt.execution.gateways.paper import PaperGateway
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.feature.streams import Streams, new_streams
from tickrt.market.book import new_book
from tickrt.market.instrument import Instrument
from tickrt.memory.records import RECORD_DTYPE
from tickrt.memory.ring import FeedView, Ring
from tickrt.observe.clock import ticks_per_ns
from tickrt.risk.limits import new_risk
from tickrt.runtime.backends.handle import Engine, RowRing, new_engines
from tickrt.runtime.loop.state import RECORDS, Loop, LoopSettings, new_loop, new_wiring
from tickrt.runtime.model_source import Source, load_source
from tickrt.strategy.state import Mode, StrategyConfig, new_strategies

__all__ = ["Assembly", "StrategySlot", "assemble"]

_LOG = logging.getLogger("tickrt.session")


@dataclass(frozen=True)
class StrategySlot:
    """One strategy with everything that its settings name."""

    name: str
    settings: StrategySettings
    symbol: int
    instrument: Instrument
    spec: FeatureSpec
    source: Source | None  # None where the backend needs no model

    @property
    def stream_key(self) -> tuple[int, str]:
        """Strategies with the same key share rows."""
        return self.symbol, self.spec.hash

    @property
    def engine_key(self) -> tuple[int, str, str]:
        """Strategies with the same key share an engine."""
        return self.symbol, self.spec.hash, self.source.identity if self.source else ""


@dataclass(frozen=True)
class Assembly:
    """What a session runs; `slots` are in the order of the loop's strategies."""

    loop: Loop
    slots: tuple[StrategySlot, ...]
    engines: tuple[Engine, ...]
    gateway: GatewayLike
    records: Ring
    loader: Any  # of the engines, as `backends.prepare` gives it

    def close(self) -> None:
        """Release the engines and the gateway; the loop must have ended."""
        for engine in self.engines:
            engine.close()
        self.loader.close()
        self.gateway.close()


def _spec_of(settings: StrategySettings, source: Source) -> FeatureSpec:
    """The named spec, or the one that lies with the model or that its metadata names."""
    if settings.spec is not None:
        return load_spec(settings.spec)
    if source.spec is not None:
        return load_spec(source.spec)
    name = source.model.metadata.get("tickrt.spec")
    if name is None:
        raise ConfigError(
            f"{source.model.name}: its metadata names no feature spec: say which one with --spec"
        )
    return load_spec(name)


def _names(strategies: Sequence[StrategySettings]) -> list[str]:
    """Each strategy's name; one without is called by its policy, numbered where that is taken."""
    taken = {settings.name for settings in strategies}
    names = []
    for settings in strategies:
        name = settings.name or policy_kind(settings.policy)
        kind, number = name, 1
        while settings.name is None and name in taken:
            number += 1
            name = f"{kind} {number}"
        taken.add(name)
        names.append(name)
    return names


def _slot(
    config: SessionConfig,
    settings: StrategySettings,
    name: str,
    markets: Sequence[Instrument],
) -> StrategySlot:
    symbols = [market.symbol for market in markets]
    wanted = settings.symbol or symbols[0]
    if wanted not in symbols:
        raise ConfigError(f"strategy symbol {wanted!r} is not in the data: {', '.join(symbols)}")
    symbol = symbols.index(wanted)
    source: Source | None = None
    needs_model = backends.probe(config.backend).needs_model
    if not needs_model and settings.spec is not None:
        spec = load_spec(settings.spec)
    else:
        source = load_source(settings, config)
        spec = _spec_of(settings, source)
        check_spec(source.model, spec)
    if not needs_model:
        source = None
    return StrategySlot(name, settings, symbol, markets[symbol], spec, source)


def _ring(streams: Streams, k: int) -> RowRing:
    first = streams.rows.ctypes.data + 4 * int(streams.row_offset[k])
    return RowRing(first, int(streams.window[k]), int(streams.width[k]))


def _gateway(config: SessionConfig, context: GatewayContext) -> GatewayLike:
    nobody = isinstance(config.gateway, NullSettings)
    return NullGateway() if nobody else PaperGateway(context)


def assemble(
    config: SessionConfig,
    markets: Sequence[Instrument],
    feed: FeedView,
    gateway: GatewayLike | GatewayMaker | None = None,
) -> Assembly:
    """Read models and specs, allocate everything, open the engines.

    Args:
        config: the session.
        markets: the instrument of each symbol, in the order of the data.
        feed: where the loop reads its events.
        gateway: who answers the orders, or what makes it; default: the one that `config` names.

    Raises:
        ConfigError, ModelError, FeatureMismatchError, SpecError: what does not fit, both sides.
    """
    opened: list[Any] = []
    try:
        return _assemble(config, markets, feed, gateway, opened)
    except BaseException:
        for thing in reversed(opened):  # it may be a process
            thing.close()
        raise


def _assemble(
    config: SessionConfig,
    markets: Sequence[Instrument],
    feed: FeedView,
    gateway: GatewayLike | GatewayMaker | None,
    opened: list[Any],
) -> Assembly:
    """`assemble`; what it opens is in `opened`."""
    if len({market.symbol for market in markets}) != len(markets):
        raise ConfigError(f"two files of one symbol: {[market.symbol for market in markets]}")
    slots = sorted(
        (
            _slot(config, settings, name, markets)
            for settings, name in zip(config.strategies, _names(config.strategies), strict=True)
        ),
        key=lambda slot: slot.engine_key,
    )
    stream_keys = sorted({slot.stream_key for slot in slots})
    engine_keys = sorted({slot.engine_key for slot in slots})
    by_stream = {slot.stream_key: slot for slot in slots}
    by_engine = {slot.engine_key: slot for slot in slots}
    streams = new_streams(
        [(key[0], by_stream[key].spec, markets[key[0]].tick_size) for key in stream_keys]
    )
    engine_stream = [stream_keys.index(key[:2]) for key in engine_keys]
    if config.stateful and not config.split:
        raise ConfigError("--stateful carries the states that the split has: drop --no-split")
    if config.engine_python is not None and not backends.probe(config.backend).in_host:
        _LOG.warning(
            "engine_python = %s is not used: the %s backend runs models in this process",
            *(config.engine_python, config.backend),
        )
    loader = backends.prepare(config.backend, len(engine_keys), config)
    opened.append(loader)
    rings = [_ring(streams, k) for k in engine_stream]
    engines = _engines(config, loader, [by_engine[key] for key in engine_keys], rings, opened)
    deadline = int(config.deadline_us * 1e3 * ticks_per_ns())
    strategy_engine = [engine_keys.index(slot.engine_key) for slot in slots]
    book = new_book([market.tick_size for market in markets])
    context = GatewayContext(book, feed, tuple(slot.symbol for slot in slots), tuple(markets))
    if gateway is None:
        gateway = _gateway(config, context)
    elif callable(gateway):
        gateway = gateway(context)
    records = Ring.local(RECORDS, RECORD_DTYPE)
    loop = new_loop(
        book,
        streams,
        new_engines(engines, engine_stream, strategy_engine, deadline),
        new_strategies([_strategy(s, e) for s, e in zip(slots, strategy_engine, strict=True)]),
        new_risk([slot.settings.risk for slot in slots]),
        new_wiring(len(markets), [k[0] for k in stream_keys], engine_stream, strategy_engine),
        (gateway, records),
        LoopSettings(config.healthy_needed, wait_for_records=config.pace == 0),
    )
    return Assembly(loop, tuple(slots), tuple(engines), gateway, records, loader)


def _engines(
    config: SessionConfig,
    loader: Any,
    slots: Sequence[StrategySlot],
    rings: Sequence[RowRing],
    opened: list[Any],
) -> list[Engine]:
    """An engine for each slot; those of one model on many streams may share what runs it."""
    shares: dict[tuple[str, str], list[int]] = {}
    for i, slot in enumerate(slots):
        shares.setdefault(slot.engine_key[1:], []).append(i)
    found: dict[int, Engine] = {}
    for members in shares.values():
        source = slots[members[0]].source
        together = backends.load_group(loader, source, [rings[i] for i in members], config)
        for n, i in enumerate(members):
            found[i] = together[n] if together else loader.load(source, rings[i], config)
            opened.append(found[i])
    return [found[i] for i in range(len(slots))]


def _strategy(slot: StrategySlot, engine: int) -> StrategyConfig:
    settings = slot.settings
    return StrategyConfig(
        instrument=slot.instrument,
        symbol=slot.symbol,
        engine=engine,
        params=settings.policy,
        fallback=settings.fallback,
        mode=Mode.SHADOW if settings.shadow else Mode.LIVE,
    )
