"""The nightly pipeline: a new ONNX in a folder becomes a bundle in the registry, by itself.

Entry points: `Pipeline.run_once` (look once), `Pipeline.watch` (keep looking).

    FOLDER/*.onnx            what training put there; stays, once built
    FOLDER/quarantine/       models that could not be built, each with NAME.error.txt
    FOLDER/.tickrt/built.json   digests of models that are done with

Invariants: each build is a process of its own, at low priority and with a time limit; however it
ends (an error, a crash, a hang), the pipeline and everything else goes on. A bundle is verified
before it is added, and added before it is promoted. A model is looked at only when its size and
time have stood still for one round, so that a file that is being copied is not taken for broken.

Known limits: one build at a time; the folder is polled.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tickrt.engines.bundle.crypto import AesKey
from tickrt.engines.registry.registry import Registry
from tickrt.errors import RegistryError, TickrtError
from tickrt.files import write_file

__all__ = ["Outcome", "Pipeline"]

_LOW_PRIORITY: Final = 15
_CHILD: Final = (
    "import os, sys; os.nice({nice}); from tickrt.cli import main; sys.exit(main(sys.argv[1:]))"
)
_STATE: Final = Path(".tickrt") / "built.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one model: `digest` of its bundle, or the `error` that quarantined it."""

    model: Path
    sha256: str
    digest: str | None
    error: str
    seconds: float


@dataclass
class Pipeline:
    """Builds what appears in a folder.

    Attributes:
        folder: where models appear.
        registry: where bundles go.
        options: further arguments of ``tickrt build`` (precision, target, keys by name, …).
        channel: what a good bundle is promoted to.
        key: verifies encrypted payloads before the bundle is added; None: as stored.
        timeout_s: a build that takes longer is killed and its model quarantined.
    """

    folder: Path
    registry: Registry
    options: Sequence[str] = ()
    channel: str = "canary"
    key: AesKey | None = None
    timeout_s: float = 3600.0
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def run_once(self, wait: bool = False) -> list[Outcome]:
        """Build every model that is new and no longer changing.

        Args:
            wait: take files as they are, without a second look at their size.
        """
        done = self._done()
        outcomes = []
        for path in sorted(self.folder.glob("*.onnx")):
            try:
                stat = path.stat()
            except OSError:
                continue  # taken away while we looked
            stamp = (stat.st_size, stat.st_mtime_ns)
            settled = wait or self._seen.get(path) == stamp
            self._seen[path] = stamp
            if not settled:
                continue
            outcome = self._process(path, done)
            if outcome is not None:
                outcomes.append(outcome)
                # A quarantined model that is put back is tried again: what was wrong may be mended.
                if outcome.digest or path.exists():
                    done[outcome.sha256] = outcome.digest or "quarantined"
                    self._remember(done)
        return outcomes

    def watch(
        self,
        report: Callable[[Outcome], None],
        stop: Callable[[], bool] = lambda: False,
        every_s: float = 2.0,
    ) -> None:
        """Look every `every_s` seconds until `stop()`; `report` is told of every model."""
        while not stop():
            for outcome in self.run_once():
                report(outcome)
            end = time.monotonic() + every_s
            while not stop() and time.monotonic() < end:
                time.sleep(min(0.1, every_s))

    def _done(self) -> dict[str, str]:
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # at worst a model is built again, to the same bundle
        return {str(k): str(v) for k, v in state.items()} if isinstance(state, dict) else {}

    def _remember(self, done: dict[str, str]) -> None:
        path = self.folder / _STATE
        path.parent.mkdir(exist_ok=True)
        write_file(path, [json.dumps(done, indent=1, sort_keys=True).encode()])

    def _process(self, path: Path, done: dict[str, str]) -> Outcome | None:
        started = time.monotonic()
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return None
        if sha256 in done:
            return None
        digest, error = None, ""
        with tempfile.TemporaryDirectory(prefix="tickrt-rebuild-") as folder:
            bundle = Path(folder) / f"{path.stem}.bundle"
            error = self._build(path, bundle)
            if not error:
                try:
                    digest = self._publish(bundle, path, sha256)
                except TickrtError as problem:
                    error = str(problem)
        if error:
            self._quarantine(path, sha256, error)
        return Outcome(path, sha256, digest, error, time.monotonic() - started)

    def _build(self, path: Path, bundle: Path) -> str:
        """Run ``tickrt build`` at low priority; returns its error, empty when it succeeded."""
        code = _CHILD.format(nice=_LOW_PRIORITY)
        command = [sys.executable, "-c", code, "build", str(path), "-o", str(bundle)]
        try:
            done = subprocess.run(
                [*command, "--json", *self.options],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return f"the build took more than {self.timeout_s:g} s and was killed"
        if done.returncode < 0:
            return f"the build process died of signal {-done.returncode}\n{done.stderr.strip()}"
        if done.returncode != 0 or not bundle.is_file():
            return done.stderr.strip() or f"the build ended with exit status {done.returncode}"
        return ""

    def _publish(self, bundle: Path, path: Path, sha256: str) -> str:
        """Verify, add, promote; returns the digest."""
        digest = self.registry.add(bundle, note=f"built from {path.name} {sha256[:12]}")
        with self.registry.open(digest, self.key) as added:
            if added.manifest.model.sha256 != sha256:
                raise RegistryError(f"{path.name}: changed while it was built")
            added.verify()
        self.registry.promote(digest, self.channel, note=f"rebuild of {path.name}")
        return digest

    def _quarantine(self, path: Path, sha256: str, error: str) -> None:
        """Move the model away with its error; what cannot be moved is left, and not tried again."""
        folder = self.folder / "quarantine"
        folder.mkdir(exist_ok=True)
        name = f"{path.stem}-{sha256[:12]}"
        write_file(folder / f"{name}.error.txt", [error.encode() + b"\n"])
        try:
            os.replace(path, folder / f"{name}.onnx")
        except OSError as problem:
            note = f"\n(the model could not be moved here: {problem.strerror})\n"
            write_file(folder / f"{name}.error.txt", [(error + note).encode()])
