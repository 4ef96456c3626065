"""Runs one registry operation and dies by SIGKILL at its n-th write step, for every n.

Usage: registry_killer.py ROOT BUNDLE OPERATION…   (a helper of test_registry.py, its own process)

Every call that changes the disk counts as two steps, before and after it; writes are torn.
ROOT is copied for each n, the operation runs in a forked child that is killed at step n, and the
copies are left as ROOT.<n> for the test to look at. Prints the number of steps.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tickrt.engines.registry.registry import Registry

WRITERS = ("write", "pwrite")
CHANGERS = ("open", "fsync", "replace", "unlink", "ftruncate", "close", "mkdir")


def arm(victim: int) -> list[int]:
    """Make the `victim`-th step from now the last; returns the counter."""
    count = [0]

    def step() -> None:
        count[0] += 1
        if count[0] == victim:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            result = real(*args, **kwargs)
            step()
            return result

        return call

    def torn(real: Callable[..., int]) -> Callable[..., int]:
        def call(handle: int, data: memoryview, *rest: int) -> int:
            step()
            done = real(handle, data[: max(1, len(data) // 2)], *rest)
            step()
            return done

        return call

    for name in CHANGERS:
        setattr(os, name, counted(getattr(os, name)))
    for name in WRITERS:
        setattr(os, name, torn(getattr(os, name)))
    return count


def operate(root: Path, bundle: Path, operation: str) -> None:
    registry = Registry(root, allow_unsigned=True, create=True)
    if operation == "add":
        registry.add(bundle)
    elif operation == "promote":
        registry.promote("canary", "prod")
    elif operation == "rollback":
        registry.rollback("canary")
    else:
        registry.gc(keep=0, grace_s=0.0)


def main() -> None:
    root, bundle, operation = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    victim = 0
    while True:
        victim += 1
        copy = root.with_name(f"{root.name}.{victim}")
        shutil.copytree(root, copy)
        child = os.fork()
        if child == 0:
            arm(victim)
            operate(copy, bundle, operation)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            break
    print(victim)


if __name__ == "__main__":
    main()
