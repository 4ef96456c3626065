"""Machines whose files were written down: ``machines/NAME.txt``.

``== PATH`` begins a file of several lines, ``= PATH TEXT`` is one of one line, ``i32 PATH N`` one
with a number in binary, ``x PATH`` a program. Lines with ``#`` before the first file are remarks.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tickrt.observe.doctor.tree import Tree

__all__ = ["machine"]

_FOLDER = Path(__file__).parent / "machines"


def machine(name: str, root: Path, **changes: str | None) -> Tree:
    """The files of machine `name` below `root`.

    Args:
        changes: by the end of its path (``__`` for ``/``), a file's new text; None: it is gone.
    """
    tree, block = Tree(root), ""
    for line in (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        path, _, text = rest.partition(" ")
        if mark in ("==", "=", "i32", "x") and path.startswith("/"):
            block = path if mark == "==" else ""
            data = struct.pack("=i", int(text)) if mark == "i32" else f"{text}\n".encode()
            _write(tree, path, b"" if mark == "==" else data)
            if mark == "x":
                tree.at(path).chmod(0o755)
        elif block:
            with tree.at(block).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
    for end, new in changes.items():
        _change(tree, end.replace("__", "/"), new)
    return tree


def _write(tree: Tree, path: str, data: bytes) -> None:
    tree.at(path).parent.mkdir(parents=True, exist_ok=True)
    tree.at(path).write_bytes(data)


def _change(tree: Tree, end: str, new: str | None) -> None:
    found = [path for path in tree.root.rglob("*") if path.as_posix().endswith(f"/{end}")]
    assert found, f"no file ends in {end}"
    for path in found:
        if new is None:
            path.unlink()
        else:
            path.write_text(f"{new}\n", encoding="utf-8")
