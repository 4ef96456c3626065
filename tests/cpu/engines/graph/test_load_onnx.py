"""Models from files: what is refused, with the same words whoever reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from helpers.engine_zoo import ZOO
from tickrt.engines.graph.check import read_model
from tickrt.engines.graph.load import check_onnx, inputs_of, load_onnx, opset_of
from tickrt.errors import ModelError, SplitError

READERS = pytest.mark.parametrize("read", [load_onnx, read_model])


@READERS
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.uff", b"", "a UFF model, and only ONNX is read"),
        ("a.PTH", b"", "a PyTorch model, and only ONNX is read"),
        ("a.onnx", b"", "the file is empty"),
        ("a.onnx", b"\xff\xff", "not a readable ONNX model"),
        ("a.onnx", b"\x08\x08", "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_refused(
    read: Callable[[Path], Any], name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: {says}"):
        read(tmp_path / name)


@READERS
def test_a_file_that_cannot_be_read_is_named(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read: No such file"):
        read(tmp_path / "none.onnx")


def test_an_invalid_graph_is_refused_with_advice() -> None:
    model = ZOO["mlp"]()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(
        ModelError, match=r"m: not a valid ONNX model \(.*NoSuchOp.*export it again"
    ):
        check_onnx(model, "m")
    with pytest.raises(SplitError, match="mend the rule"):
        check_onnx(model, "m", "mend the rule", SplitError)


def test_weights_are_no_inputs() -> None:
    model = ZOO["mlp"]()
    weight = model.graph.initializer[0]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
    )
    assert [value.name for value in inputs_of(model)] == ["rows"]


def test_the_opset_is_that_of_onnx() -> None:
    model = ZOO["mlp"]()
    model.opset_import.insert(0, onnx.helper.make_opsetid("com.example", 3))
    assert opset_of(model) == 17
    del model.opset_import[:]
    assert opset_of(model) == 0
