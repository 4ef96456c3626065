"""A folder of immutable bundles and named channels that say which of them runs where.

Entry points: `Registry` with `add`, `items`, `promote`, `rollback`, `history`, `gc`, `open`, and
`watch` for whoever swaps engines while they run.

    objects/<digest>.bundle   one bundle each, named by its digest, never changed
    audit.jsonl               every operation, chained by hashes; *the* state: channels are its fold
    lock                      held (flock) by the one writer

Invariants: there is one source of truth, the log, and an operation happened exactly when its record
is whole. A bundle is in place before the record that names it is written, and leaves only after the
record that drops it; so a crash at any point leaves the state before or after, never between, and
at worst a file that nothing names, which `gc` removes.

Known limits: flock needs a local file system (or NFS v4); `Watcher` polls the log's size.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tickrt.engines.bundle.crypto import AesKey, PublicKey, load_public_key
from tickrt.engines.bundle.format import Bundle, open_bundle, read_manifest
from tickrt.engines.bundle.manifest import Manifest
from tickrt.engines.registry.audit import AuditLog, Record
from tickrt.errors import RegistryError
from tickrt.files import TEMPORARY, sync_folder, write_file

__all__ = ["Change", "Item", "Registry", "Watcher"]

_CHANNEL = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_POLL_S = 0.05


@dataclass(frozen=True)
class Item:
    """A bundle that the registry holds, and the channels that point at it."""

    digest: str
    path: Path
    added_ns: int
    channels: tuple[str, ...]
    manifest: Manifest


@dataclass(frozen=True)
class Change:
    """A channel points at another bundle; `sequence` is the audit record that says so."""

    channel: str
    digest: str
    previous: str | None
    path: Path
    sequence: int


@dataclass(frozen=True)
class _State:
    held: dict[str, int]  # digest → when it was added
    channels: dict[str, list[str]]  # promoted bundles, oldest first; the last one is current
    last: dict[str, int]  # channel → sequence of its latest record


def _fold(records: Sequence[Record]) -> _State:
    state = _State({}, {}, {})
    for record in records:
        stack = state.channels.setdefault(record.channel, []) if record.channel else []
        if record.operation == "add":
            state.held[record.digests[0]] = record.time_ns
        elif record.operation == "promote":
            stack.append(record.digests[0])
        elif record.operation == "rollback":
            stack.pop()
        elif record.operation == "gc":
            for digest in record.digests:
                state.held.pop(digest, None)
            for promoted in state.channels.values():
                promoted[:] = [digest for digest in promoted if digest in state.held]
        if record.channel:
            state.last[record.channel] = record.sequence
    return state


class Registry:
    """The registry at `root`.

        registry = tr.Registry("models", allow_unsigned=True, create=True)
        digest = registry.add("mine.bundle", note="first")
        registry.promote(digest, "live")

    Args:
        root: the folder; `create=True` makes it.
        trust: public keys, or where they are (``file:PATH``); only bundles signed by one of them
            come in or go out.
        allow_unsigned: without `trust`, hold bundles whose signature nobody verified.

    Raises:
        RegistryError: there is no registry at `root`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        trust: Sequence[PublicKey | str] = (),
        allow_unsigned: bool = False,
        create: bool = False,
    ) -> None:
        self.root = root = Path(root)
        self._trust = [load_public_key(k) if isinstance(k, str) else k for k in trust]
        self._allow_unsigned = allow_unsigned
        self._objects = root / "objects"
        self._log = AuditLog(root / "audit.jsonl")
        if create:
            self._objects.mkdir(parents=True, exist_ok=True)
        if not self._objects.is_dir():
            raise RegistryError(f"{root}: no registry here; `tickrt registry add` makes one")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_State]:
        """The writer's lock and the state under it. The kernel frees it when the process dies."""
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self._state()
        finally:
            os.close(handle)

    def _state(self) -> _State:
        return _fold(self._log.read())

    def _path(self, digest: str) -> Path:
        return self._objects / f"{digest}.bundle"

    def _open(self, path: Path, key: AesKey | None = None) -> Bundle:
        return open_bundle(path, self._trust, key, self._allow_unsigned)

    def add(self, source: str | os.PathLike[str], note: str = "") -> str:
        """Verify a bundle and take a copy in; one that is held already stays as it is.

        Returns:
            its digest, by which it is named from now on.

        Raises:
            BundleError, TamperedError: it is damaged, or not signed by a trusted key.
            RegistryError: the registry cannot be written.
        """
        source = Path(source)
        with self._open(source) as bundle:
            bundle.verify()
            digest = bundle.digest
        with self._locked() as state:
            if digest in state.held:
                return digest
            try:
                write_file(self._path(digest), [source.read_bytes()], mode=0o444)
            except OSError as error:
                raise RegistryError(f"{self._path(digest)}: {error.strerror}") from None
            with self._open(self._path(digest)) as copied:
                copied.verify()  # what lies in the registry is what was verified
                if copied.digest != digest:
                    raise RegistryError(f"{source}: changed while it was added; add it again")
            self._log.append("add", (digest,), note=note)
        return digest

    def items(self) -> list[Item]:
        """Every bundle held, newest first."""
        state = self._state()
        pointed: dict[str, list[str]] = {}
        for channel, stack in sorted(state.channels.items()):
            if stack:
                pointed.setdefault(stack[-1], []).append(channel)
        newest = sorted(state.held.items(), key=lambda held: -held[1])
        return [
            Item(
                digest,
                self._path(digest),
                added,
                tuple(pointed.get(digest, ())),
                read_manifest(self._path(digest)),
            )
            for digest, added in newest
        ]

    def channels(self) -> dict[str, str]:
        """The bundle that each channel points at."""
        return {name: stack[-1] for name, stack in self._state().channels.items() if stack}

    def resolve(self, reference: str) -> str:
        """The digest that a reference means: a channel, or at least 8 digits of a digest.

        Raises:
            RegistryError: nothing, or more than one bundle, is meant.
        """
        return self._resolve(self._state(), reference)

    def _resolve(self, state: _State, reference: str) -> str:
        stack = state.channels.get(reference)
        if stack:
            return stack[-1]
        digests = []
        if _DIGEST.fullmatch(reference):
            digests = [digest for digest in state.held if digest.startswith(reference)]
        if len(digests) == 1:
            return digests[0]
        if digests:
            raise RegistryError(
                f"{self.root}: {reference} is {len(digests)} bundles; give more of it"
            )
        names = ", ".join(sorted(name for name, stack in state.channels.items() if stack))
        raise RegistryError(
            f"{self.root}: no bundle or channel {reference!r}; channels: {names or 'none'}; "
            "bundles: `tickrt registry list`"
        )

    def promote(self, reference: str, channel: str, note: str = "", force: bool = False) -> str:
        """Point `channel` at a bundle; it is verified again first.

        Args:
            reference: a digest (or the start of one), or another channel such as ``canary``.
            channel: lower case letters, digits, ``_`` and ``-``; a new name makes a channel.
            note: why, for the audit log.
            force: promote a bundle whose parity check failed.

        Returns:
            the digest. Promoting what the channel points at already changes nothing.

        Raises:
            RegistryError: unknown reference, bad channel name, or parity failed.
            BundleError: the bundle is damaged.
        """
        if not _CHANNEL.fullmatch(channel):
            raise RegistryError(f"channel {channel!r}: expected a-z, 0-9, - and _")
        with self._locked() as state:
            digest = self._resolve(state, reference)
            stack = state.channels.get(channel)
            if stack and stack[-1] == digest:
                return digest
            with self._open(self._path(digest)) as bundle:
                bundle.verify()
                parity = bundle.manifest.parity
            if parity.status == "failed" and not force:
                raise RegistryError(
                    f"{digest[:12]}: its parity check failed (max error {parity.max_abs}); "
                    "build it again, or promote it with --force"
                )
            self._log.append("promote", (digest,), channel, note)
        return digest

    def rollback(self, channel: str, note: str = "") -> str:
        """Point `channel` at what it pointed at before the latest promotion; can be repeated.

        Returns:
            the digest that the channel points at now.

        Raises:
            RegistryError: there is nothing to go back to, or it is damaged.
        """
        with self._locked() as state:
            stack = state.channels.get(channel, [])
            if len(stack) < 2:
                raise RegistryError(f"{self.root}: channel {channel!r} has nothing to go back to")
            with self._open(self._path(stack[-2])) as bundle:
                bundle.verify()
            self._log.append("rollback", (stack[-2], stack[-1]), channel, note)
        return stack[-2]

    def history(self, channel: str | None = None) -> list[Record]:
        """The audit log, oldest first, its chain verified; of one channel if named."""
        records = self._log.read()
        return [r for r in records if channel is None or r.channel == channel]

    def gc(self, keep: int = 3, grace_s: float = 86_400.0, note: str = "") -> list[str]:
        """Drop bundles that no channel needs, and files that a crash left over.

        Args:
            keep: how many promotions back each channel can still be rolled to.
            grace_s: bundles added within this many seconds stay, promoted or not.

        Returns:
            the digests that were dropped.
        """
        with self._locked() as state:
            needed = {d for stack in state.channels.values() for d in stack[-(keep + 1) :]}
            since = time.time_ns() - int(grace_s * 1e9)
            needed |= {digest for digest, added in state.held.items() if added > since}
            dropped = tuple(sorted(set(state.held) - needed))
            if dropped:
                self._log.append("gc", dropped, note=note)
            kept = {self._path(digest) for digest in set(state.held) - set(dropped)}
            for path in list(self._objects.iterdir()):
                if path not in kept and (path.suffix == ".bundle" or TEMPORARY in path.name):
                    path.unlink(missing_ok=True)
            sync_folder(self._objects)
        return list(dropped)

    def open(self, reference: str, key: AesKey | None = None) -> Bundle:
        """Open a held bundle.

        Raises:
            RegistryError: unknown reference.
            BundleError: damaged, or not the bundle that its name says.
        """
        digest = self.resolve(reference)
        bundle = self._open(self._path(digest), key)
        if bundle.digest != digest:
            bundle.close()
            raise RegistryError(f"{self._path(digest)}: is another bundle than its name says")
        return bundle

    def verify(self) -> int:
        """Verify the chain and every bundle held; returns how many. Raises like `open`."""
        held = self._state().held
        for digest in held:
            with self.open(digest) as bundle:
                bundle.verify()
        return len(held)

    def watch(self, channel: str) -> Watcher:
        """Watch a channel for the hot swap; the watcher starts from what it points at now."""
        return Watcher(self, channel)

    def current(self, channel: str) -> Change | None:
        """What `channel` points at, or None."""
        state = self._state()
        stack = state.channels.get(channel)
        if not stack:
            return None
        previous = stack[-2] if len(stack) > 1 else None
        return Change(channel, stack[-1], previous, self._path(stack[-1]), state.last[channel])

    def log_stamp(self) -> tuple[int, int]:
        """Size and modification time of the log; they change with every operation."""
        try:
            stat = os.stat(self._log.path)
        except FileNotFoundError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns


class Watcher:
    """Reports when a channel points at another bundle.

    Invariants: no change is missed, but those between two polls are reported as one, the latest.
    """

    def __init__(self, registry: Registry, channel: str) -> None:
        self._registry = registry
        self._channel = channel
        self._stamp = registry.log_stamp()
        self.current = registry.current(channel)

    def poll(self) -> Change | None:
        """The change since the last call, or None. Costs one stat where nothing happened."""
        stamp = self._registry.log_stamp()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        before, now = self.current, self._registry.current(self._channel)
        self.current = now
        if now is None or (before is not None and before.digest == now.digest):
            return None
        return now

    def wait(self, timeout_s: float) -> Change | None:
        """Like `poll`, but waits for a change at most `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        while (change := self.poll()) is None and time.monotonic() < end:
            time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))
        return change
