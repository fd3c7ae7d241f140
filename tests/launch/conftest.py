"""A small study that tests copy before they harm it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.small_runs import run_study, small_config
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
