"""What a builder that is given the whole model makes of it.

Entry point: `ordered(order)` → the model, and the split to run, as the order wants it.
"""

from __future__ import annotations

from tickrt.engines.bundle.toolchain import EngineOrder
from tickrt.engines.graph.check import LoopModel, loop_model
from tickrt.engines.split.plan import SplitPlan, plan
from tickrt.errors import BuildError

__all__ = ["ordered"]


def ordered(order: EngineOrder) -> tuple[LoopModel, SplitPlan | None]:
    """The checked model, and its split where that is wanted and possible.

    Raises:
        ModelError: it does not fit the loop's contract.
        BuildError: carried states are wanted, and it cannot run with them; says why.
    """
    model = loop_model(order.data, "the model")
    split = plan(model, stateful=order.stateful) if order.split else None
    if order.stateful and (split is None or not split.usable):
        why = "--no-split" if split is None else split.why_not
        raise BuildError(f"--stateful: it cannot run with carried state: {why}")
    return model, split if split is not None and split.usable else None
