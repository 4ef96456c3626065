"""May this bundle run on this machine? If not: both sides named, and the command that rebuilds it.

Entry points: `check_here`, `load_bundle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tickrt.backends import DEFAULT, under
from tickrt.engines.bundle.crypto import AesKey, PublicKey
from tickrt.engines.bundle.format import Bundle, open_bundle
from tickrt.engines.bundle.machine import Here
from tickrt.engines.bundle.manifest import Builder, Manifest
from tickrt.errors import ConfigError, FeatureMismatchError, IncompatibleError

__all__ = ["check_here", "load_bundle", "runs_in_host"]

# Backends whose engines run in a host: only it calls CUDA, so it compares the GPU when it loads.
_IN_HOSTS: Final = ("resident",)


def runs_in_host(manifest: Manifest) -> bool:
    """Whether the engines' GPU is compared by the host that loads them, not here."""
    return manifest.builder.backend in _IN_HOSTS


def _major(version: str) -> str:
    return version.split(".")[0]


def _same_version(manifest: Manifest, have: str) -> bool:
    want = manifest.builder.version
    # ONNX is read by every release of a major version; a plan for a GPU by its own release only.
    if not manifest.builder.gpu_arch or manifest.builder.options.get("version_compatible"):
        return _major(want) == _major(have)
    return want == have


def _look(builder: Builder, python: str, for_gpu: bool) -> Here:
    """This machine, as whoever runs the bundle's engines sees it: a host under another interpreter
    has another library than we have."""
    try:
        look = getattr(under(builder.library, ""), "here", None)
        if look is not None:
            return under(builder.library, python).here()  # type: ignore[no-any-return]
    except ConfigError:
        if python:
            raise
        # a backend that nobody here knows: its library may be installed all the same
    return Here.look([builder.library], with_gpus=for_gpu)


def check_here(manifest: Manifest, where: str, here: Here | None = None, python: str = "") -> None:
    """Whether the bundle may run here. An engine host's GPU is compared by the host, when it
    loads.

    Args:
        manifest: the bundle's.
        where: its file, for the message and the command.
        here: the machine; None: this one.
        python: the interpreter that has the library, for engines that run in a host; empty: ours.

    Raises:
        IncompatibleError: library, version, operating system, GPU architecture or driver differ.
        ConfigError, HostError: no host starts under that interpreter.
    """
    builder = manifest.builder
    in_host = runs_in_host(manifest)
    for_gpu = bool(builder.gpu_arch) and not in_host
    here = here or _look(builder, python, for_gpu)
    differences = []
    have = here.libraries.get(builder.library)
    if have is None:
        differences.append(("library", f"{builder.library} {builder.version}", "not installed"))
    elif not _same_version(manifest, have):
        differences.append((builder.library, builder.version, have))
    target = f" --backend {builder.backend}" if in_host else ""
    if builder.gpu_arch and builder.platform != here.platform:
        differences.append(("platform", builder.platform, here.platform))
    if for_gpu:
        first = here.gpus[0] if here.gpus else None
        if first is None or first.arch not in builder.gpu_arch:
            gpu = f"{first.arch} ({first.name})" if first else "no GPU"
            differences.append(("GPU architecture", ", ".join(builder.gpu_arch), gpu))
        if first and builder.driver and builder.driver != first.driver:
            differences.append(("CUDA driver", builder.driver, first.driver))
        if first and builder.driver is None:  # it was built ahead of time, for a named target
            target = f" --target {first.arch}"
    if differences:
        sides = "; ".join(f"{what}: built for {a}, here {b}" for what, a, b in differences)
        command = f"tickrt build --rebuild {where} -o {where} --force{target}"
        if for_gpu and not here.gpus:
            command += f" --backend {DEFAULT}"
        elif python:
            command += f" --engine-python {python}"
        raise IncompatibleError(f"{where}: {sides}; rebuild it here with: {command}")


def load_bundle(
    path: Path,
    trust: Sequence[PublicKey] = (),
    key: AesKey | None = None,
    allow_unsigned: bool = False,
    feature_hash: str | None = None,
    here: Here | None = None,
    python: str = "",
) -> Bundle:
    """Open a bundle to run it here: verified, compatible, and made for the running features.

    Args:
        path, trust, key, allow_unsigned: as for `open_bundle`.
        feature_hash: the running spec's; None: not checked.
        here, python: as for `check_here`.

    Raises:
        BundleError, TamperedError: as for `open_bundle`.
        IncompatibleError: built for another machine or library.
        FeatureMismatchError: built for another feature spec.
    """
    bundle = open_bundle(path, trust, key, allow_unsigned)
    try:
        check_here(bundle.manifest, str(path), here, python)
        built_for = bundle.manifest.model.feature_hash
        if feature_hash is not None and built_for != feature_hash:
            raise FeatureMismatchError(
                f"{path}: built for feature hash {built_for}, the running spec has {feature_hash}; "
                "train and build with the running spec, or name the bundle's own spec "
                f"({bundle.manifest.model.spec})"
            )
    except BaseException:
        bundle.close()
        raise
    return bundle
