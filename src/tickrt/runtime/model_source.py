"""Where a strategy's model comes from: an ONNX file, a shipped name, or a bundle.

Entry points: `load_source(settings, config)` → `Source`; `split_to_run`. A bundle is
verified before any of its payloads is read (`engines.bundle.compat`); an ONNX file is checked
(`engines.graph.check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tickrt.config import SessionConfig, StrategySettings
from tickrt.engines.graph.check import LoopModel, read_model
from tickrt.engines.split.plan import SplitPlan
from tickrt.errors import ConfigError
from tickrt.models import find_model

__all__ = ["Source", "load_source", "split_to_run"]


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
    with load_bundle(path, trust, key, allow_unsigned) as bundle:
        model, plan = runnable(bundle)
        return Source(model, path, bundle.digest, built=True, plan=plan)


def split_to_run(source: Source, settings: SessionConfig) -> SplitPlan | None:
    """The split to run; None: the whole window.

    Raises:
        ConfigError: the settings ask for what the model or bundle does not have.
    """
    from tickrt.engines.split.plan import plan

    name, stateful = source.model.name, settings.stateful
    if source.plan is not None and not settings.split:
        raise ConfigError(
            f"{name}: the bundle was built split: for the whole window build it with "
            "`tickrt build --no-split`"
        )
    if source.built:
        if stateful and (source.plan is None or source.plan.mode != "carry"):
            raise ConfigError(f"{name}: build the bundle with --stateful to run it so")
        return source.plan
    if not settings.split:
        return None
    split_plan = plan(source.model, stateful=stateful)
    if stateful and not split_plan.usable:
        raise ConfigError(f"{name}: cannot run with carried state: {split_plan.why_not}")
    return split_plan if split_plan.usable else None
