"""What a bundle sends to the host that runs it.

Entry point: `bundle_parcel`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tickrt.config import SessionConfig
from tickrt.engines.bundle.crypto import load_aes_key, load_public_key
from tickrt.engines.bundle.format import open_bundle
from tickrt.errors import TamperedError
from tickrt.host.parcel import Parcel
from tickrt.runtime.model_source import Source

__all__ = ["bundle_parcel"]


def bundle_parcel(source: Source, settings: SessionConfig, more: Sequence[str] = ()) -> Parcel:
    """A bundle's engines, verified and decrypted here, with all that the host needs to verify them.

    Args:
        source: the bundle that the session has checked.
        settings: says which keys are trusted, and where the one to decrypt it is.
        more: names of further payloads.

    Returns:
        the parcel; its facts have ``engines``, payloads by role.

    Raises:
        BundleError, TamperedError: as `engines.bundle.format.open_bundle`, or the file was replaced
            since the session checked it.
    """
    trust = [load_public_key(name) for name in settings.trust]
    key = load_aes_key(settings.bundle_key) if settings.bundle_key else None
    with open_bundle(source.path, trust, key, settings.allow_unsigned) as bundle:
        if bundle.digest != source.identity:
            raise TamperedError(f"{source.path}: was replaced while it was being loaded")
        engines = {engine.role: engine.payload for engine in bundle.manifest.engines}
        payloads = {name: bundle.payload(name) for name in (*engines.values(), *more)}
        return Parcel(
            str(source.path),
            source.model.format,
            payloads,
            {"engines": engines},
            bundle.signed,
            tuple(key.raw for key in trust),
            settings.allow_unsigned,
        )
