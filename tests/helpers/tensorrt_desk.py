"""Models and bundles for TensorRT, wherever it is: a stand-in, or a real one on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from helpers.engine_zoo import ZOO, F
from tickrt.engines.build.build import BuildRequest, build, write_built

__all__ = ["ROWS", "bundle_of", "saved"]

ROWS = (np.random.default_rng(0).normal(size=(80, F)).cumsum(0) * 0.1).astype(np.float32)


def saved(name: str, folder: Path) -> Path:
    """A model of `engine_zoo.ZOO` as a file."""
    path = folder / f"{name}.onnx"
    onnx.save(ZOO[name](), path)
    return path


def bundle_of(name: str, folder: Path, python: str, **more: Any) -> Path:
    """The same as a bundle, built under that interpreter."""
    request = BuildRequest(saved(name, folder), backend="tensorrt", engine_python=python, **more)
    out = folder / f"{name}.bundle"
    write_built(build(request, ROWS, "walk"), out)
    return out
