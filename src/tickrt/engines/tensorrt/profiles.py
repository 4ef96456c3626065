"""Optimisation profiles: which shapes of a dynamic input an engine is made for.

Entry point: `make_profiles`. Text form: ``input=min:opt:max``, each a number or numbers joined by
``x`` (the dynamic axes in order, or the whole shape): ``rows=1:1:128``, ``rows=1x50:1x100:8x200``.
Axes with the same name in the model (``batch``) take the same numbers in every input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tickrt.engines.graph.interface import TensorInfo
from tickrt.errors import ConfigError

__all__ = ["DEFAULT_BATCH", "Profile", "make_profiles"]

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]
Bounds = tuple[int, int, int]

DEFAULT_BATCH: Final[Bounds] = (1, 1, 1)  # what the loop submits; tactics are tuned for it alone
_TEXT: Final = re.compile(r"([^=]+)=([0-9x]+):([0-9x]+):([0-9x]+)")


def _dynamic(info: TensorInfo) -> list[int]:
    return [axis for axis, size in enumerate(info.shape) if isinstance(size, str)]


def _read(text: str, inputs: dict[str, TensorInfo]) -> dict[str, Bounds]:
    """One profile's bounds by axis name; parts are joined by commas."""
    bounds: dict[str, Bounds] = {}
    for part in text.split(","):
        match = _TEXT.fullmatch(part.strip())
        if not match:
            raise ConfigError(f"--profile {part!r}: expected input=min:opt:max, as rows=1:1:128")
        name = match[1]
        if name not in inputs:
            raise ConfigError(f"--profile {part!r}: no input {name!r}; has {', '.join(inputs)}")
        info, axes = inputs[name], _dynamic(inputs[name])
        triples = [tuple(int(n) for n in match[i].split("x")) for i in (2, 3, 4)]
        if any(len(t) != len(triples[0]) for t in triples):
            raise ConfigError(f"--profile {part!r}: min, opt and max have different lengths")
        if len(triples[0]) == len(info.shape) != len(axes):
            for axis, size in enumerate(info.shape):
                if isinstance(size, int) and any(t[axis] != size for t in triples):
                    raise ConfigError(f"--profile {part!r}: axis {axis} is {size} in the model")
            triples = [tuple(t[axis] for axis in axes) for t in triples]
        if len(triples[0]) != len(axes):
            names = ", ".join(str(info.shape[axis]) for axis in axes) or "none"
            raise ConfigError(f"--profile {part!r}: the dynamic axes of {name} are: {names}")
        for position, axis in enumerate(axes):
            low, best, high = (t[position] for t in triples)
            if not 0 < low <= best <= high:
                raise ConfigError(f"--profile {part!r}: expected 0 < min ≤ opt ≤ max")
            bounds[str(info.shape[axis])] = (low, best, high)
    return bounds


def make_profiles(inputs: Sequence[TensorInfo], texts: Sequence[str] = ()) -> tuple[Profile, ...]:
    """The profiles of an engine with these inputs.

    Args:
        inputs: names and shapes; a dynamic axis is its name.
        texts: one per profile; none: the batch is 1.

    Returns:
        shapes by input; empty where no axis is dynamic.

    Raises:
        ConfigError: text that cannot be read, or a dynamic axis that nobody gave bounds.
    """
    by_name = {info.name: info for info in inputs}
    dynamic = {str(info.shape[axis]) for info in inputs for axis in _dynamic(info)}
    if not dynamic and not texts:
        return ()
    first = str(inputs[0].shape[0])
    profiles = []
    for text in texts or ("",):
        bounds = _read(text, by_name) if text else {}
        for axis in dynamic - set(bounds):
            if axis not in (first, "batch"):
                raise ConfigError(
                    f"the model's axis {axis!r} is dynamic; give its bounds with "
                    f"--profile, as {_example(inputs, axis)}"
                )
            bounds[axis] = DEFAULT_BATCH
        profile: Profile = {}
        for info in inputs:
            low, best, high = (
                tuple(s if isinstance(s, int) else bounds[s][i] for s in info.shape)
                for i in range(3)
            )
            profile[info.name] = (low, best, high)
        profiles.append(profile)
    return tuple(profiles)


def _example(inputs: Sequence[TensorInfo], axis: str) -> str:
    info = next(info for info in inputs if axis in info.shape)
    sizes = [["1", "1", "128"] if i == 0 else ["16", "100", "256"] for i in range(9)]
    parts = ["x".join(sizes[axis][i] for axis in _dynamic(info)) for i in range(3)]
    return f"{info.name}={':'.join(parts)}"
