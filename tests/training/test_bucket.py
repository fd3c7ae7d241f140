"""Checkpoints in a bucket: Orbax, gcsfs and tensorstore against a stand-in for Google's API."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.training.checkpoint import Checkpoints
from antiimit_jax.training.step import TrainState
from tests.training.fake_bucket import fake_bucket

pytestmark = pytest.mark.large  # needs the extra gcs
gcsfs = pytest.importorskip("gcsfs")


def state(step: int) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero + step, {"a": jnp.arange(5.0) * step}, {"m": jnp.ones(3)}, zero, zero)


def log(steps: int) -> list[dict]:
    return [{"step": i, "loss": 1 / i} for i in range(1, steps + 1)]


def test_checkpoints_in_a_bucket_are_kept_restored_and_passed_over(monkeypatch, caplog):
    with fake_bucket(monkeypatch) as objects:
        checkpoints = Checkpoints("gs://bucket/run/tuned")
        assert checkpoints.restore(state(0)) is None
        for step in (1, 2, 3):
            checkpoints.save(state(step), log(step))
        checkpoints.close()
        kept = {name.split("/")[2] for name in objects}
        assert kept == {"2", "3"}  # the newest two
        found, rows = Checkpoints("gs://bucket/run/tuned").restore(state(0))
        jax.tree.map(np.testing.assert_array_equal, found, state(3))
        assert rows == log(3)

        (name,) = [name for name in objects if name.endswith("/3/log/metadata")]
        generation, contents = objects[name]
        objects[name] = generation, contents.replace(b'"loss": 0.5', b'"loss": 0.4')
        again = Checkpoints("gs://bucket/run/tuned")
        found, rows = again.restore(state(0))
        assert int(found.step) == 2 and rows == log(2)
        assert "gs://bucket/run/tuned/3: not a whole checkpoint" in caplog.text
        assert any(name.startswith("run/tuned/damaged-3/state/") for name in objects)
        again.save(state(3), log(3))
        assert int(Checkpoints("gs://bucket/run/tuned").restore(state(0))[0].step) == 3

        del objects["run/tuned/3/commit_success.txt"]  # killed while it wrote
        gcsfs.GCSFileSystem.current().invalidate_cache()  # as in another process
        assert int(Checkpoints("gs://bucket/run/tuned").restore(state(0))[0].step) == 2


def test_a_bucket_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
    with fake_bucket(monkeypatch):
        with pytest.raises(UserError, match="gs://other/run: cannot be reached"):
            Checkpoints("gs://other/run")


def test_a_bucket_that_does_not_answer_is_no_damaged_checkpoint(monkeypatch):
    with fake_bucket(monkeypatch) as objects:
        checkpoints = Checkpoints("gs://bucket/else/tuned")
        checkpoints.save(state(1), log(1))
        (name,) = [name for name in objects if name.endswith("/1/log/metadata")]
        lost = objects.pop(name)
        gcsfs.GCSFileSystem.current().invalidate_cache()
        with pytest.raises(UserError, match="gs://bucket/else/tuned/1: cannot be read .* again"):
            checkpoints.restore(state(0))
        objects[name] = lost
        assert int(Checkpoints("gs://bucket/else/tuned").restore(state(0))[0].step) == 1
