"""Keys: where they come from, and that they never show."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tickrt.engines.bundle.crypto import (
    KeySource,
    load_aes_key,
    load_private_key,
    load_public_key,
    new_keys,
)
from tickrt.errors import ConfigError


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return new_keys(tmp_path / "keys")


def test_new_keys_are_private_and_never_overwritten(paths: dict[str, Path]) -> None:
    assert paths["aes"].stat().st_mode & 0o777 == 0o600
    assert paths["private"].stat().st_mode & 0o777 == 0o600
    before = paths["aes"].read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        new_keys(paths["aes"].parent)
    assert paths["aes"].read_bytes() == before


def test_the_same_key_from_file_environment_and_command(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", paths["aes"].read_text())
    show = f"import pathlib; print(pathlib.Path({str(paths['aes'])!r}).read_text())"
    command = f"command:{shlex.quote(sys.executable)} -c {shlex.quote(show)}"
    raws = {load_aes_key(s).raw for s in (f"file:{paths['aes']}", "env:MY_KEY", command)}
    assert len(raws) == 1
    signing, public = load_private_key(str(paths["private"])), load_public_key(str(paths["public"]))
    assert signing.public.key_id == public.key_id
    assert public.verify(signing.sign(b"x"), b"x")
    assert not public.verify(signing.sign(b"x"), b"y")


def test_keys_do_not_show(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text = paths["aes"].read_text().strip()
    key, signing = load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))
    secret = text.partition(":")[2]
    assert secret not in f"{key!r} {key} {signing!r}"
    assert key.raw.hex() not in f"{key!r}{key}"
    monkeypatch.setenv("BROKEN", text[:-8])
    for source in (text, "env:BROKEN", f"command:false --token {secret}", "command:/no/such x"):
        with pytest.raises(ConfigError) as caught:
            load_aes_key(source)
        assert secret[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("env:TICKRT_NO_SUCH", "not set"),
        ("file:/no/such/file", "No such file"),
        ("command:false", "exit status 1"),
        ("deadbeef", "never belongs on the command line"),
        ("command:vault 'x", "a quote is not closed"),
        ("command: ", "never belongs on the command line"),
        ("vault:x", "file:PATH, env:NAME or command:"),
    ],
)
def test_what_is_wrong_is_said(source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_aes_key(source)


def test_wrong_kinds_and_open_files_are_refused(paths: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="is a ed25519-private key, needed is aes256"):
        load_aes_key(str(paths["private"]))
    paths["aes"].chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_aes_key(str(paths["aes"]))
    assert str(KeySource.parse("command:vault read -token=secret k")) == "command:vault"
