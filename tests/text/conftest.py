"""The plain-Python tokenizer of the embedded model, made once a worker."""

from __future__ import annotations

import pytest

from tests.text.byte_pairs import BytePairs


@pytest.fixture(scope="session")
def truth(smollm2) -> BytePairs:
    """Reads the same file as the embedded model, without any of our code."""
    return BytePairs(smollm2.source.path)
