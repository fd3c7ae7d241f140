"""The small models that these tests train."""

from __future__ import annotations

import pytest

from antiimit_jax.language_model import LanguageModel, load_language_model
from tests.tiny_model import write_tiny_model
from tests.training.small_model import Small, make_small


@pytest.fixture(scope="session")
def small() -> Small:
    """Vocabulary 1000, two layers."""
    return make_small()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> LanguageModel:
    """A folder's, with the embedded model's tokenizer."""
    return load_language_model(str(write_tiny_model(tmp_path_factory.mktemp("m"))))
