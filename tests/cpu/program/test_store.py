"""A program as bytes: what is written is read, and damaged bytes never do anything but say so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.programs import checked, program
from helpers.small_programs import sound_program
from tickrt.errors import EngineError
from tickrt.models.architectures import zoo
from tickrt.program import StreamProgram, from_bytes, to_bytes
from tickrt.program.check import check
from tickrt.program.reference import Reference

MAGIC = b"tickrt-program 1\n"


def _lstm() -> bytes:
    made = program(checked(zoo.recurrent("LSTM", 1, 3, 4, 2)), "bank")
    assert made is not None
    return to_bytes(made)


LSTM = _lstm()
HEAD = LSTM.index(b"\n", len(MAGIC))


def same(one: StreamProgram, other: StreamProgram) -> bool:
    return to_bytes(one) == to_bytes(other)


@settings(max_examples=100, deadline=None)
@given(sound_program())
def test_what_is_written_is_read(made: StreamProgram) -> None:
    again = from_bytes(to_bytes(made))
    assert (again.sections, again.facts) == (made.sections, made.facts)
    assert same(again, made)


def test_the_same_outputs() -> None:
    engines = [Reference(from_bytes(LSTM)) for _ in range(2)]
    for seq in range(8):
        row = np.array([seq, 1.0], np.float32)
        if seq >= 3:
            first, second = (e.submit(seq, row) for e in engines)
            np.testing.assert_array_equal(first, second)
        for engine in engines:
            engine.advance(seq, row)


def _read(content: bytes) -> None:
    """An error that names the cure, or a sound program of no more memory than its bytes say."""
    try:
        made = from_bytes(content)
    except EngineError:
        return
    check(made)
    assert sum(b.start.nbytes for b in made.buffers.values() if b.start is not None) <= len(content)


@settings(max_examples=600, deadline=None)
@given(st.integers(0, HEAD), st.integers(1, 255))
def test_a_changed_byte_of_the_head(at: int, change: int) -> None:
    _read(LSTM[:at] + bytes([LSTM[at] ^ change]) + LSTM[at + 1 :])


@settings(max_examples=50, deadline=None)
@given(st.integers(HEAD + 1, len(LSTM) - 1), st.integers(1, 255))
def test_a_changed_byte_of_the_values(at: int, change: int) -> None:
    damaged = LSTM[:at] + bytes([LSTM[at] ^ change]) + LSTM[at + 1 :]
    assert not same(from_bytes(damaged), from_bytes(LSTM))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(LSTM) - 1))
def test_a_cut_file(end: int) -> None:
    with pytest.raises(EngineError, match="build the engine again"):
        from_bytes(LSTM[:end])


def test_bytes_behind_the_end() -> None:
    with pytest.raises(EngineError, match=r"it has \d+ bytes, its head describes \d+"):
        from_bytes(LSTM + b"\0")


def test_another_version() -> None:
    with pytest.raises(EngineError, match="not a program of this version"):
        from_bytes(LSTM.replace(b"program 1", b"program 2", 1))


WRONG: list[Any] = [None, -1, 2**70, 1e400, 1.5, True, "x", [], {}, [[]], {"a": 1}, [None] * 4]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the head."""
    listed = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in listed if isinstance(value, (dict, list)) else ():
        found += [(*path, key)]
        if isinstance(inner, (dict, list)):
            found += _paths(inner, (*path, key))
    return found


PATHS = _paths(json.loads(LSTM[len(MAGIC) : HEAD]))


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(PATHS), st.sampled_from([*WRONG, "gone"]))
def test_another_value_anywhere_in_the_head(path: tuple[Any, ...], wrong: Any) -> None:
    head = json.loads(LSTM[len(MAGIC) : HEAD])
    place = head
    for key in path[:-1]:
        place = place[key]
    if wrong == "gone":
        del place[path[-1]]
    else:
        place[path[-1]] = wrong
    _read(MAGIC + json.dumps(head).encode() + LSTM[HEAD:])


def test_two_buffers_of_one_name() -> None:
    head = json.loads(LSTM[len(MAGIC) : HEAD])
    head["buffers"].append(head["buffers"][0])
    with pytest.raises(EngineError, match="two buffers 'rows'"):
        from_bytes(MAGIC + json.dumps(head).encode() + LSTM[HEAD:])


def test_a_head_that_is_nested_without_end() -> None:
    deep = b'{"for":"i","body":[' * 100_000
    with pytest.raises(EngineError, match="damaged"):
        from_bytes(MAGIC + deep + b"\n")
