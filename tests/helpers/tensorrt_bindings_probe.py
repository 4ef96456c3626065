"""Says what a TensorRT binding module has (a helper of test_tensorrt_names.py, its own process).

Usage: tensorrt_bindings_probe.py FOLDER MODULE < paths.json
Reads a list of dotted paths; prints for each whether it exists and the first docstring line(s) that
give signatures. FOLDER goes in front of the module search path.
"""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    module = importlib.import_module(sys.argv[2])
    answers = {}
    for path in json.load(sys.stdin):
        found = module
        try:
            for name in path.split("."):
                found = getattr(found, name)
        except AttributeError:
            answers[path] = None
            continue
        name = path.rpartition(".")[2]
        lines = [line.strip() for line in (found.__doc__ or "").splitlines()]
        if isinstance(found, type):
            init = getattr(found.__init__, "__doc__", None) or ""
            lines, name = [line.strip() for line in init.splitlines()], "__init__"
        answers[path] = [line for line in lines if f"{name}(" in line and "->" in line]
    print(json.dumps({"version": module.__version__, "answers": answers}))


if __name__ == "__main__":
    main()
