"""Batteries of many cases: a tenth runs in `make test`, the others in `make test-large`."""

from __future__ import annotations

from typing import Any

import pytest


def tenth(cases: list[Any]) -> list[Any]:
    """The cases, all but the first tenth of them marked `large`."""
    few = -(-len(cases) // 10)
    return [*cases[:few], *(pytest.param(case, marks=pytest.mark.large) for case in cases[few:])]
