"""``python -m benchmarks [NAME…]``: run every benchmark that defines `main`, or those named."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def run(names: list[str]) -> int:
    """Run the named benchmarks (all without names), each with its defaults; 1 if any failed."""
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_")
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    failed = 0
    for name in names or known:
        main = getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)
        if main is None:
            continue
        print(f"== {name}", flush=True)
        failed |= int(bool(main([])))
    return failed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
