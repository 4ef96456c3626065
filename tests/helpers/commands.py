"""What a command ended with."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest


class Result(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its stdout as strict JSON, where it succeeded and said nothing else."""
        assert self.code == 0, self.err
        assert self.err == ""
        return json.loads(self.out, parse_constant=pytest.fail)
