"""Made-up runs, written once for all tests of this room."""

from __future__ import annotations

import pytest

from tests.reporting.synthetic_run import write_synthetic_run

HOSTILE = '<script>alert("x")</script>\x1b[31m\x1b]0;title\x07\u202e'


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """All stages, splits and files; the placebo trained for fewer steps."""
    folder = tmp_path_factory.mktemp("runs") / "a=b" / "full"  # a folder that looks partitioned
    return write_synthetic_run(folder, items_per_split=48, steps=240, placebo_steps=120)


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory):
    """Markup, escape sequences and direction marks in the model's name, a word and model text."""
    folder = tmp_path_factory.mktemp("hostile")
    return write_synthetic_run(
        folder, items_per_split=24, hostile=HOSTILE, steps=60, placebo_steps=60
    )


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory):
    """Base and tuned only, no drift and no file but metrics.json."""
    folder = tmp_path_factory.mktemp("bare")
    write_synthetic_run(folder, items_per_split=24, stages=("base", "tuned"), drift=False)
    for path in (*folder.glob("*.parquet"), folder / "config.json"):
        path.unlink()
    return folder
