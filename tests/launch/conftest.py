"""A small study that tests copy before they harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.small_runs import once, run_study, small_config
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="session")
def done(model, tmp_path_factory) -> Path:
    """The folder of a finished study of `model`."""
    workdir = tmp_path_factory.mktemp("runs") / "done"
    run_study(small_config(model), workdir)
    return workdir


@pytest.fixture(scope="module")
def shared() -> Iterator[None]:
    """Small studies share what is slow and the same for them."""
    with pytest.MonkeyPatch.context() as patch:
        once(patch)
        yield
