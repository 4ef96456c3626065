"""The host process: ``python -m tickrt.host --control-fd N --parent PID [--kernel FORMAT=WHERE]…``.

Our process starts it as a file, with the interpreter that has what the engine needs: that one may
know no tickrt, or another. So it takes this very package from beside this file, and nothing else
from there.
"""

from __future__ import annotations

import sys


def _this_package() -> None:
    """Make the tickrt that this file belongs to importable, and only that."""
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    sys.path[:] = [entry for entry in sys.path if entry != str(root / "host")]
    spec = spec_from_file_location(
        "tickrt", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["tickrt"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("an engine host needs Python 3.9 or later, this is %s" % sys.version.split()[0])
    if not __package__:
        _this_package()
    try:
        from tickrt.host.service import main
    except ImportError as error:
        sys.exit("this interpreter cannot run an engine host: %s" % error)
    sys.exit(main(sys.argv[1:]))
