"""What a session asks of a model, for every backend that starts from ONNX.

Entry points: `onnx_source` (refuses engines of another format), `wanted_split`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickrt.errors import ConfigError, IncompatibleError

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.split.plan import SplitPlan
    from tickrt.runtime.model_source import Source

__all__ = ["onnx_source", "wanted_split"]


def onnx_source(source: Source, backend: str) -> None:
    """Refuse a bundle whose engines are no ONNX.

    Raises:
        IncompatibleError: it was built by another backend than `backend`.
    """
    from tickrt import backends
    from tickrt.engines.graph.check import ONNX

    if source.model.format != ONNX:
        builder = "onnxruntime" if backends.probe(backend).builds else backend
        raise IncompatibleError(
            f"{source.path}: its engines were built by the backend {source.model.format!r}: run it "
            f"with --backend {source.model.format}, or build it for this one with: tickrt build "
            f"--rebuild {source.path} -o X.bundle --backend {builder}"
        )


def wanted_split(source: Source, settings: SessionConfig) -> SplitPlan | None:
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
