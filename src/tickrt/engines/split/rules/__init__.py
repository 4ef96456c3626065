"""One small rule per operator; `TABLE` maps operator → rule.

To add an operator: subclass `flow.Rule` in the file where it belongs and decorate it with
``@register("OpName")``. A rule sees nodes in the spelling of `prepare`.
"""

from tickrt.engines.split.rules import (
    elementwise,
    linear,
    normalise,
    recurrent,
    reduce,
    select,
    shape,
    slide,
)
from tickrt.engines.split.rules.base import TABLE, register

__all__ = ["TABLE", "register"]

_MODULES = (elementwise, linear, normalise, recurrent, reduce, select, shape, slide)
