"""tickrt: deep-learning inference inside a low-latency trading loop.

An ONNX model goes between a level-2 market feed and an order gateway; the time from a tick to the
order that it causes is a few microseconds. Everything that Python needs is a name of this package:

    import tickrt as tr

    events, meta = tr.simulate(seconds=60, seed=1)
    tr.save_events("sim.npz", events, meta)
    with tr.Session(tr.SessionConfig(data=(Path("sim.npz"),))) as session:
        print(session.run().latency_us["tick_to_order"].p50)

`import tickrt` is quick: a name loads its module when it is first used, and with it Numba, ONNX
Runtime or torch; nothing is compiled before something runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickrt.backtest.run import Backtest
    from tickrt.config import SessionConfig, StrategySettings, load_config
    from tickrt.engines.build.request import BuildRequest
    from tickrt.engines.registry.registry import Registry
    from tickrt.errors import TickrtError
    from tickrt.execution.gateways.gateway import Gateway
    from tickrt.feature.normalise import fit_spec
    from tickrt.feature.rows import Features, features
    from tickrt.feature.spec import FeatureSpec, load_spec
    from tickrt.feeds.captures.convert import convert
    from tickrt.market.event_file import EventFile, load_events, save_events
    from tickrt.market.instrument import Instrument
    from tickrt.memory.ring import Ring
    from tickrt.offline import build, open_bundle, split
    from tickrt.risk.limits import RiskLimits
    from tickrt.runtime.session import Session
    from tickrt.simulation.simulator import simulate
    from tickrt.strategy.params import MakerParams, TakerParams
    from tickrt.training.export import export_onnx

__version__ = "0.1.0"

__all__ = [
    "Backtest",
    "BuildRequest",
    "EventFile",
    "FeatureSpec",
    "Features",
    "Gateway",
    "Instrument",
    "MakerParams",
    "Registry",
    "Ring",
    "RiskLimits",
    "Session",
    "SessionConfig",
    "StrategySettings",
    "TakerParams",
    "TickrtError",
    "__version__",
    "build",
    "convert",
    "export_onnx",
    "features",
    "fit_spec",
    "load_config",
    "load_events",
    "load_spec",
    "open_bundle",
    "save_events",
    "simulate",
    "split",
]

# Where each name is; the imports above say the same to type checkers (held by a test).
_MODULES = {
    "Backtest": "tickrt.backtest.run",
    "BuildRequest": "tickrt.engines.build.request",
    "EventFile": "tickrt.market.event_file",
    "FeatureSpec": "tickrt.feature.spec",
    "Features": "tickrt.feature.rows",
    "Gateway": "tickrt.execution.gateways.gateway",
    "Instrument": "tickrt.market.instrument",
    "MakerParams": "tickrt.strategy.params",
    "Registry": "tickrt.engines.registry.registry",
    "Ring": "tickrt.memory.ring",
    "RiskLimits": "tickrt.risk.limits",
    "Session": "tickrt.runtime.session",
    "SessionConfig": "tickrt.config",
    "StrategySettings": "tickrt.config",
    "TakerParams": "tickrt.strategy.params",
    "TickrtError": "tickrt.errors",
    "build": "tickrt.offline",
    "convert": "tickrt.feeds.captures.convert",
    "export_onnx": "tickrt.training.export",
    "features": "tickrt.feature.rows",
    "fit_spec": "tickrt.feature.normalise",
    "load_config": "tickrt.config",
    "load_events": "tickrt.market.event_file",
    "load_spec": "tickrt.feature.spec",
    "open_bundle": "tickrt.offline",
    "save_events": "tickrt.market.event_file",
    "simulate": "tickrt.simulation.simulator",
    "split": "tickrt.offline",
}

if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        """Load a public name's module when the name is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module 'tickrt' has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """The public names; the modules of the package are imported by their own names."""
        return sorted(__all__)
