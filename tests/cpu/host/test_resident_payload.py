"""A resident kernel as bytes; and what a machine without a GPU says when it is asked to run one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.sessions import market_file, settings, tiny_model
from tickrt.backends import probe
from tickrt.cli import main
from tickrt.errors import HostError
from tickrt.feature.spec import load_spec
from tickrt.host.kernels.resident import FORMAT, PAYLOAD, _unpack, load, pack
from tickrt.host.memory import registry, vulkan
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide

FACTS: dict[str, Any] = {
    "blocks": 8,
    "threads": 512,
    "shared_bytes": 4096,
    "architecture": "sm_90a",
    "width": 5,
    "outputs": 3,
    "marks": [],
}
ARRAYS = {
    "starts": np.arange(3, dtype=np.float32),
    "constants": np.float32([np.nan, -0.0]),
    "weights": np.arange(100, dtype=np.float32),
}
CUBIN = b"\x7fELF\n\0 cubin"
WHOLE = pack(FACTS, ARRAYS, CUBIN)
without_gpu = pytest.mark.skipif(probe(FORMAT).runs == "", reason="this machine has a GPU")


def head_of(**changes: Any) -> bytes:
    """The payload with other facts; None takes one away."""
    magic, head, rest = WHOLE.split(b"\n", 2)
    facts = {k: v for k, v in {**json.loads(head), **changes}.items() if v is not None}
    return b"\n".join([magic, json.dumps(facts).encode(), rest])


def test_what_was_packed_comes_out() -> None:
    facts, arrays, cubin = _unpack(memoryview(WHOLE))
    assert {name: facts[name] for name in FACTS} == FACTS
    assert cubin == CUBIN
    for array, packed in zip(arrays, ARRAYS.values(), strict=True):
        assert array.dtype == np.float32
        assert array.tobytes() == packed.tobytes()


@pytest.mark.parametrize("name", [*FACTS, "sizes", "cubin"])
@pytest.mark.parametrize("value", [None, -1, 1.5, 1 << 40, "8", True, float("inf"), {}, [[]]])
def test_facts_that_cannot_be(name: str, value: Any) -> None:
    if (name, value) in (("architecture", "8"), ("marks", [[]])):
        pytest.skip("that may be")
    with pytest.raises(HostError, match="the resident kernel is damaged"):
        _unpack(memoryview(head_of(**{name: value})))


@pytest.mark.parametrize(
    "sizes", [[], [12], [12, 8, 400, 4], [12, 8, -4], [13, 7, 400], ["12", 8, 400], [0, 20, 400]]
)
def test_sizes_that_cannot_be(sizes: list[Any]) -> None:
    with pytest.raises(HostError, match="damaged: "):
        _unpack(memoryview(head_of(sizes=sizes)))


@pytest.mark.parametrize("head", [b"[]", b"7", b"null", b"{", b"\xff", b"[" * 100_000, b""])
def test_heads_that_cannot_be(head: bytes) -> None:
    magic, _, rest = WHOLE.split(b"\n", 2)
    with pytest.raises(HostError, match="damaged"):
        _unpack(memoryview(b"\n".join([magic, head, rest])))


def test_another_version_and_a_part() -> None:
    for content in (b"", b"tickrt-resident 2\n" + WHOLE[18:], WHOLE[:18], b"onnx"):
        with pytest.raises(HostError, match="not a resident kernel of this version: build"):
            _unpack(memoryview(content))
    for content in (WHOLE[:-1], WHOLE + b"\0", WHOLE[: len(WHOLE) // 2]):
        with pytest.raises(HostError, match=r"damaged: .* bytes instead of"):
            _unpack(memoryview(content))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@example(len(WHOLE) - 1, 1)
def test_a_damaged_byte_is_an_error_or_another_number(at: int, change: int) -> None:
    """Never another exception: the host answers with one of ours."""
    damaged = bytearray(WHOLE)
    damaged[at] ^= change
    try:
        facts, arrays, _ = _unpack(memoryview(bytes(damaged)))
    except HostError:
        return
    assert len(arrays) == 3
    assert all(type(facts[name]) is int for name in ("blocks", "width", "outputs"))


@without_gpu
def test_without_a_driver_every_request_says_so() -> None:
    """Each is refused, and the host is as it was before."""
    with pytest.raises(HostError, match=r"no CUDA driver here: libcuda\.so\.1"):
        load({PAYLOAD: memoryview(WHOLE)}, {"engines": {"full": PAYLOAD}})
    rows = np.zeros((8, 5), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, 4, 5), 3, direct=True)
    with HostProcess() as host:
        with pytest.raises(HostError, match=r"no CUDA driver here: libcuda\.so\.1"):
            host.warm(FORMAT)
        for content, why in ((WHOLE, "no CUDA driver"), (WHOLE[:-1], "damaged")):
            parcel = Parcel("m", FORMAT, {PAYLOAD: content}, {"engines": {"full": PAYLOAD}})
            with pytest.raises(HostError, match=why):
                host.load(parcel, side.layout, (side.rows, side.host), side.box)
        assert host.stats()["generation"] == 0
    side.close()


@without_gpu
def test_run_says_that_there_is_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen, model = settings(tmp_path), tmp_path / "m.onnx"
    tiny_model(load_spec(str(chosen.spec)), model)
    data = market_file(tmp_path / "m.npz", 40)
    errors = []
    for backend in (FORMAT, "tensorrt"):
        command = ["run", "--data", str(data), "--model", str(model)]
        command += ["--spec", str(chosen.spec), "--backend", backend]
        errors.append(main(command))
        said = " ".join(capsys.readouterr().err.split())
        assert f"backend '{backend}' cannot run a model here" in said
    assert "no CUDA driver here (libcuda.so.1)" in probe(FORMAT).runs
    assert errors == [2, 2]


@without_gpu
def test_row_memory_is_ordinary_without_vulkan() -> None:
    why = vulkan.probe()
    if not why:
        pytest.skip("this machine has a GPU that Vulkan sees")
    assert "Vulkan" in why or "vk" in why
    assert registry.choose("auto") == registry.ORDINARY
    with pytest.raises(Exception, match="row memory 'vulkan' cannot be had here: "):
        registry.choose("vulkan")
