"""Where a strategy's model comes from: an ONNX file, a shipped name, or a bundle.

Entry point: `load_source(settings, config)` → `Source`. A bundle is verified before any of its
payloads is read (`engines.bundle.compat`); an ONNX file is checked (`engines.graph.check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.graph.check import LoopModel, read_model
from tickrt.engines.split.plan import SplitPlan
from tickrt.models import find_model

__all__ = ["Source", "load_source"]


@dataclass(frozen=True, eq=False)
class Source:
    """A model that can be run.

    Attributes:
        model: its checked interface.
        path: its file.
        identity: digest of what runs: the ONNX file's, or the bundle's.
        spec: the feature spec that lies with it, or None.
        built: True for a bundle: it runs as it was built, split or whole.
        plan: a bundle's split; None where it is whole.
    """

    model: LoopModel
    path: Path
    identity: str
    spec: Path | None = None
    built: bool = False
    plan: SplitPlan | None = None


def load_source(settings: StrategySettings, config: SessionConfig) -> Source:
    """Read the model that `settings` name.

    Raises:
        ModelError, BundleError, TamperedError, IncompatibleError: it cannot be used here.
    """
    if Path(settings.model).suffix != ".bundle":
        files = find_model(settings.model)
        model = read_model(files.onnx)
        return Source(model, files.onnx, model.sha256, files.spec)
    from tickrt.engines.build.runnable import runnable
    from tickrt.engines.bundle.compat import load_bundle
    from tickrt.engines.bundle.crypto import load_aes_key, load_public_key

    trust = [load_public_key(source) for source in config.trust]
    key = load_aes_key(config.bundle_key) if config.bundle_key else None
    allow_unsigned = config.allow_unsigned
    path = Path(settings.model)
    python = config.engine_python or ""
    with load_bundle(path, trust, key, allow_unsigned, python=python) as bundle:
        model, plan = runnable(bundle)
        return Source(model, path, bundle.digest, built=True, plan=plan)
