"""One small rule per operator; `TABLE` maps operator → rule.

To add an operator: subclass `flow.Rule` in the file where it belongs and decorate it with
``@register("OpName")``. A rule sees nodes in the spelling of `prepare`. New files
are imported here.
"""

import tickrt.engines.split.rules.elementwise
import tickrt.engines.split.rules.linear
import tickrt.engines.split.rules.normalise
import tickrt.engines.split.rules.recurrent
import tickrt.engines.split.rules.reduce
import tickrt.engines.split.rules.select
import tickrt.engines.split.rules.shape
import tickrt.engines.split.rules.slide  # noqa: F401
from tickrt.engines.split.rules.base import TABLE, register

__all__ = ["TABLE", "register"]
