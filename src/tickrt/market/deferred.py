"""The split book's state: levels of a message that nobody looks at before its order is out.

A long message changes many levels, and a row sees few of them. `deferred_kernels` applies those
that can be seen at once and notes the rest here, to be applied after the order is out; see there
for what decides it. `new_deferred` allocates everything once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LEAST_DEPTH", "Deferred", "new_deferred"]

CAPACITY = 4096  # levels that can be put off at once; with more the earlier ones are applied
LEAST_DEPTH = 10  # levels a side that are applied at once, however little the specs see


class Deferred(NamedTuple):
    """What was put off, and which levels may be: S symbols, 2 sides.

    Attributes:
        depth: int64[S], levels a side that must be right when the batch is complete.
        bound: int64[S, 2], a level below this index of the ladder is put off; 0: none is.
        floor: int64[S, 2], with fewer levels than this in the ladder those above `bound` have
            become too few, and what was put off could be seen.
        count: int64[1], levels that are put off.
        place: int64[CAPACITY], which level: symbol · 2 + side in the upper half, its index in the
            ladder in the lower.
        qty: float64[CAPACITY], its new quantity.
    """

    depth: npt.NDArray[np.int64]
    bound: npt.NDArray[np.int64]
    floor: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]  # type: ignore[assignment]
    place: npt.NDArray[np.int64]
    qty: npt.NDArray[np.float64]


def new_deferred(depths: Sequence[int], capacity: int = CAPACITY) -> Deferred:
    """Nothing put off.

    Args:
        depths: for each symbol, the levels a side that its deepest feature spec sees.
        capacity: levels that can be put off at once, at least 1.
    """
    return Deferred(
        depth=np.maximum(np.asarray(depths, np.int64), LEAST_DEPTH),
        bound=np.zeros((len(depths), 2), np.int64),
        floor=np.zeros((len(depths), 2), np.int64),
        count=np.zeros(1, np.int64),
        place=np.zeros(capacity, np.int64),
        qty=np.zeros(capacity),
    )
