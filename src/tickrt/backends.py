"""Backends by name: what builds engines, and what runs models in the loop.

Entry points: `register`, `names`, `find`; `probe`, `load` and `builder` ask the backend of a name.

A backend is a module, or any object, with these functions. What it lacks, it cannot do:

    probe(targets) -> Probe                    what it can do on this machine
    load(source, ring, settings) -> Engine     a model in the loop (`runtime.backends.handle`)
    load_group(source, rings, settings)        the same on many streams at once: [Engine], or None
    prepare(engines, settings) -> Loader       before the first of several: what they share
    builder(targets) -> EngineBuilder          engines from graphs (`engines.bundle.toolchain`)
    opener() -> EngineOpener                   checks and runs built engines, offline
    under(python) -> backend                   the same, its library in another interpreter
    here() -> Here                             the library and the GPUs, where it is not in ours

Known are the built-in ones, those of installed packages (entry-point group ``tickrt.backends``, the
value is the module or ``module:object``), and those given to `register`. None is imported before it
is asked for.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final

from tickrt.errors import BuildError, ConfigError

__all__ = [
    "AUTO",
    "DEFAULT",
    "GROUP",
    "PREFERRED",
    "Probe",
    "builder",
    "check",
    "find",
    "load",
    "load_group",
    "names",
    "opener",
    "prepare",
    "probe",
    "register",
    "under",
]

GROUP: Final = "tickrt.backends"
AUTO: Final = "auto"  # stands for a backend where one is built for
DEFAULT: Final = "onnxruntime"  # what every machine can run
PREFERRED: Final = "native"  # of sessions; what it cannot run exactly, it leaves to DEFAULT
_RUNTIME = "tickrt.runtime.backends"
# In the order in which `auto` asks them.
_known: dict[str, Any] = {
    "tensorrt": f"{_RUNTIME}.tensorrt:TENSORRT",
    "tensorrt_rtx": f"{_RUNTIME}.tensorrt:TENSORRT_RTX",
    DEFAULT: f"{_RUNTIME}.onnxruntime",  # before native: what it builds, every machine can run
    PREFERRED: f"{_RUNTIME}.native",
    "null": f"{_RUNTIME}.null",
    "reference": f"{_RUNTIME}.reference",
    "resident": f"{_RUNTIME}.resident",
    "onnxruntime-cuda": f"{_RUNTIME}.onnxruntime_cuda",
}


@dataclass(frozen=True)
class Probe:
    """What a backend can do on this machine.

    Attributes:
        runs: why it cannot run a model in the loop; empty where it can.
        builds: why it cannot build an engine (for the targets asked about); empty where it can.
        needs_model: False where it makes its signal without one: then a feature spec is enough.
        in_host: it runs models in a process of its own, under the interpreter that
            `engine_python` names.
    """

    runs: str = ""
    builds: str = ""
    needs_model: bool = True
    in_host: bool = False


def register(name: str, backend: object) -> None:
    """Make a backend known in this process; it takes the place of one of the same name.

    Args:
        name: for ``--backend`` and ``backend = "…"``.
        backend: a module or object as described above, or where it is: ``module`` or
            ``module:object``, imported when it is first asked for.

    Raises:
        ConfigError: the name is ``auto`` or empty.
    """
    if not name or name == AUTO:
        raise ConfigError(f"register({name!r}): a backend needs a name of its own")
    _known[name] = backend


@functools.cache
def _installed() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Every known backend, in the order in which `auto` asks them."""
    return list({**_known, **_installed()})


def check(name: str) -> str:
    """`name`, where it is known. Imports nothing.

    Raises:
        ConfigError: it is not; lists those that are, and says how to add one.
    """
    if name in _known or name in _installed():
        return name
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"unknown backend {name!r}: {hint}there are {', '.join(sorted(names()))}; another one is "
        f"added by an entry point in the group {GROUP!r}, or by tickrt.backends.register"
    )


def find(name: str) -> Any:
    """The backend of that name, imported.

    Raises:
        ConfigError: it is unknown, or it cannot be imported.
    """
    check(name)
    backend = _known.get(name) or _installed()[name]
    if not isinstance(backend, str):
        return backend
    where, _, attribute = backend.partition(":")
    try:
        module = import_module(where)
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend {name!r}: {backend} cannot be imported: {error}") from error


def _function(name: str, function: str) -> Callable[..., Any] | None:
    offered: Callable[..., Any] | None = getattr(find(name), function, None)
    return offered


def probe(name: str, targets: tuple[str, ...] = ()) -> Probe:
    """What the backend can do here.

    Args:
        targets: GPU architectures to build for; none: this machine.

    Raises:
        ConfigError: there is no such backend.
    """
    asked = _function(name, "probe")
    answer: Probe = asked(targets) if asked else Probe()
    runs = answer.runs if _function(name, "load") else answer.runs or "it only builds"
    builds = answer.builds if _function(name, "builder") else answer.builds or "it only runs models"
    return replace(answer, runs=runs, builds=builds)


def load(name: str, source: Any, ring: Any, settings: Any) -> Any:
    """An engine in the loop.

    Args:
        source: the model (`runtime.model_source.Source`); None where the backend needs none.
        ring: the stream's rows (`runtime.backends.handle.RowRing`).
        settings: the session (`config.SessionConfig`).

    Returns:
        a `runtime.backends.handle.Engine`.

    Raises:
        ConfigError: there is no such backend, or it cannot run a model here; says why.
    """
    if why := probe(name).runs:
        raise ConfigError(f"backend {name!r} cannot run a model here: {why}")
    return find(name).load(source, ring, settings)


def load_group(loader: Any, source: Any, rings: Sequence[Any], settings: Any) -> list[Any] | None:
    """Engines of one model on many streams that share what runs it; None: each is loaded alone.

    Args:
        loader: what `prepare` gave.
        source, settings: as for `load`.
        rings: the rows of each stream.

    Raises:
        ConfigError: they cannot share it, or too many would; says why.
    """
    maker = getattr(loader, "load_group", None)
    if maker is None or len(rings) < 2:
        return None
    made: list[Any] | None = maker(source, rings, settings)
    return made


class _Loads:
    """Engines that share nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self, source: Any, ring: Any, settings: Any) -> Any:
        """As the module's `load`."""
        return load(self._name, source, ring, settings)

    def load_group(self, source: Any, rings: Sequence[Any], settings: Any) -> list[Any] | None:
        """As the module's `load_group`, where it has one."""
        maker = _function(self._name, "load_group")
        return maker(source, rings, settings) if maker is not None and source is not None else None

    def close(self) -> None:
        """Nothing is left."""


def prepare(name: str, engines: int, settings: Any) -> Any:
    """What loads the engines of a session: an object with `load` as here, but for the name, and
    `close`, for when they have ended.

    Args:
        engines: how many there will be.

    Raises:
        ConfigError: there is no such backend, or it cannot have that many; says why.
    """
    maker = _function(name, "prepare")
    if maker is None:
        return _Loads(name)
    if why := probe(name).runs:
        raise ConfigError(f"backend {name!r} cannot run a model here: {why}")
    return maker(engines, settings)


def under(name: str, python: str) -> Any:
    """The backend of that name with its library in another interpreter.

    Args:
        python: the interpreter; empty: ours.

    Raises:
        ConfigError: there is no such backend, or it has no library that could be elsewhere.
    """
    backend = find(name)
    if not python:
        return backend
    elsewhere = getattr(backend, "under", None)
    if elsewhere is None:
        raise ConfigError(
            f"--engine-python: backend {name!r} builds in this process; drop it, or build with "
            "--backend tensorrt"
        )
    return elsewhere(python)


def builder(name: str, targets: tuple[str, ...] = (), python: str = "") -> Any:
    """What builds the backend's engines: an `engines.bundle.toolchain.EngineBuilder`.

    Args:
        targets: GPU architectures to build for; none: this machine.
        python: as for `under`.

    Raises:
        ConfigError: there is no such backend, or the targets are out of place.
        BuildError: it builds nothing, or what it needs is not installed.
    """
    maker = getattr(under(name, python), "builder", None)
    if maker is None:
        raise BuildError(f"--backend {name}: it builds nothing, it only runs models")
    return maker(targets)


def opener(name: str, python: str = "") -> Any:
    """What checks and runs the backend's built engines: an `engines.bundle.toolchain.EngineOpener`.

    Args:
        python: as for `under`.

    Raises:
        ConfigError: there is no such backend.
        BuildError: it builds nothing, or what it needs is not installed.
    """
    maker = getattr(under(name, python), "opener", None)
    if maker is None:
        raise BuildError(f"backend {name}: it builds nothing that could be opened")
    return maker()
