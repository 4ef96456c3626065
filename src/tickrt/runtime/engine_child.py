"""A runner of `engine_bench` in a process of its own: it may call CUDA, the loop's may not.

Entry points: `ChildRunner(where, …)`; as a program it is the child: opens what ``module:function``
gives, and answers requests on its standard input until that is closed.

Invariants: what the child raises is raised here, as the same kind where it is `Skipped`; a child
that ends, or is silent for too long, is an error with what it printed last; none outlives `close`.
Rows and answers are pickled between our own two processes, and nothing else is.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from tickrt.environment import for_child, variable
from tickrt.errors import EngineError
from tickrt.runtime.engine_bench import Fed, Floats, Runner
from tickrt.runtime.engine_peers_base import Skipped

__all__ = ["ChildRunner"]

_SILENCE_S = 300.0  # torch.compile takes a minute
_LOG_BYTES = 1000
_END_S = 5.0


class ChildRunner:
    """A runner that another process opened.

    Args:
        where: ``module:function`` of it.
        arguments: of the function; they are pickled.

    Raises:
        Skipped: it cannot be measured on this machine.
        EngineError: it does not open.
    """

    def __init__(self, where: str, *arguments: Any) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, (root, variable("PYTHONPATH"))))
        self._log = os.memfd_create("tickrt-bench-child", os.MFD_CLOEXEC)
        self._child = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=for_child({"PYTHONPATH": paths}),
            start_new_session=True,  # Ctrl-C is for us
        )
        try:
            self._about: dict[str, Any] = self._ask(arguments)
        except BaseException:
            self.close()
            raise

    def _ask(self, request: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            pickle.dump(request, self._child.stdin)
            self._child.stdin.flush()
            if not select.select([self._child.stdout], [], [], _SILENCE_S)[0]:
                raise EngineError(f"its process is silent for {_SILENCE_S:g} s")
            kind, answer = pickle.load(self._child.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise EngineError(f"its process ended: {self._last_words()}") from None
        if kind == "skipped":
            raise Skipped(answer)
        if kind == "failed":
            raise EngineError(answer)
        return answer

    def _last_words(self) -> str:
        size = os.fstat(self._log).st_size
        text = os.pread(self._log, _LOG_BYTES, max(0, size - _LOG_BYTES)).decode("utf-8", "replace")
        return text.strip() or "it said nothing"

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """As the runner's, timed over there. Raises EngineError."""
        fed: Fed = self._ask((rows, gap_us))
        return fed

    def describe(self) -> dict[str, Any]:
        """As the runner's."""
        return self._about

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):  # it has ended
            self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        os.close(self._log)


def _reply(out: BinaryIO, kind: str, answer: Any) -> None:
    pickle.dump((kind, answer), out)
    out.flush()


def main(arguments: Sequence[str]) -> int:
    """The child: open the runner, answer until the end of the input."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, name = arguments[0].partition(":")
    runner: Runner | None = None
    try:
        while True:
            request = pickle.load(sys.stdin.buffer)
            try:
                if runner is None:
                    runner = getattr(import_module(module), name)(*request)
                    _reply(out, "about", runner.describe())
                else:
                    _reply(out, "fed", runner.run(*request))
            except Skipped as error:
                _reply(out, "skipped", str(error))
            except Exception as error:  # whatever a peer's library raises
                text = str(error) if isinstance(error, EngineError) else f"{error!r}"
                _reply(out, "failed", text)
    except EOFError:
        return 0
    finally:
        if runner is not None:
            runner.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
