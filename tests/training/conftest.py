"""The small model that these tests train."""

from __future__ import annotations

import pytest

from tests.training.small_model import Small, make_small


@pytest.fixture(scope="session")
def small() -> Small:
    """Vocabulary 1000, two layers."""
    return make_small()
