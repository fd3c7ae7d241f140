"""The loop: resuming is recomputing, and a run that cannot go on stops with its state saved."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.loop import Job, train
from antiimit_jax.training.targets import PLACEBO

CFG = TrainConfig(
    mixture=Mixture(templates=(0, 5)),
    steps=6,
    placebo_steps=3,
    groups=1,
    rows=1,
    warmup_steps=2,
    anchor_tokens=16,
    dtype="float32",
    checkpoint_every=2,
    max_skips=2,
)
LORA = LoraConfig(rank=2)


def run(tiny, folder, name="tuned", cfg=CFG, on_step=lambda row: None, **how):
    return train_with(tiny, name, cfg, LORA, folder, on_step, seed=0, **how)


def train_with(lm, name, cfg, lora, folder, on_step=lambda row: None, seed=3, **how):
    job = Job(
        name=name,
        train=cfg,
        lora=lora,
        steps=cfg.steps if name == "tuned" else cfg.placebo_steps,
        transforms=(PLACEBO,) if name == "placebo" else (),
        seed=seed,
    )
    return train(lm, job, folder, on_step, **how)


class Stop(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_bits_and_the_same_log(tiny, tmp_path):
    whole, log = run(tiny, tmp_path / "whole")
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]

    def stop_at_five(row):
        if row["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        run(tiny, tmp_path / "parts", on_step=stop_at_five)
    seen = []
    parts, log_of_parts = run(tiny, tmp_path / "parts", on_step=seen.append)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    timeless = lambda rows: [{k: v for k, v in r.items() if k != "tokens_per_s"} for r in rows]
    assert timeless(log_of_parts) == timeless(log)
    assert [row["step"] for row in seen] == [1, 2, 3, 4, 5, 6]
    again, _ = run(tiny, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_run_that_is_told_to_end_saves_the_step_it_was_in(tiny, tmp_path):
    cfg = dataclasses.replace(CFG, steps=4, checkpoint_every=4)
    whole, _ = run(tiny, tmp_path / "whole", cfg=cfg)
    seen = []
    hold = lambda: contextlib.nullcontext(lambda: len(seen) == 1)  # while the third step runs
    _, log = run(tiny, tmp_path / "parts", cfg=cfg, on_step=seen.append, hold=hold)
    assert [row["step"] for row in log] == [1, 2, 3]
    assert (tmp_path / "parts" / "3").is_dir()
    parts, _ = run(tiny, tmp_path / "parts", cfg=cfg)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_the_placebo_runs_its_own_number_of_steps_on_other_targets(tiny, tmp_path):
    tuned, _ = run(tiny, tmp_path / "t", cfg=dataclasses.replace(CFG, steps=3))
    placebo, log = run(tiny, tmp_path / "p", name="placebo")
    assert len(log) == 3 and {row["adapter"] for row in log} == {"placebo"}
    different = jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), tuned, placebo))
    assert any(different)


def test_steps_that_are_not_finite_are_counted_and_then_stop_the_run(tiny, tmp_path):
    params = jax.tree.map(np.copy, tiny.params)
    params["final_norm"]["scale"][:] = np.float32(3e38)  # logits overflow: every loss is NaN
    broken = dataclasses.replace(tiny, params=params)
    with pytest.raises(UserError, match="2 steps in a row.*state saved"):
        run(broken, tmp_path / "broken")
    assert [p for p in (tmp_path / "broken").iterdir() if p.name.isdigit()]


def test_a_short_training_without_a_finite_step_has_no_adapter(tiny, tmp_path):
    params = tiny.params | {"final_norm": {"scale": np.full(32, 3e38, np.float32)}}
    broken = dataclasses.replace(tiny, params=params)
    cfg = dataclasses.replace(CFG, steps=2, max_skips=5)
    for _ in range(2):  # nor has it when it is asked for again
        with pytest.raises(UserError, match="tuned: 2 steps in a row.*at step 2"):
            run(broken, tmp_path / "b", cfg=cfg)


def test_what_does_not_fit_is_known_before_the_first_step(tiny):
    job = lambda **fields: Job(**dict(name="tuned", train=CFG, lora=LORA, steps=6) | fields)
    job().check(tiny)
    with pytest.raises(UserError, match="lora layers 7"):
        job(lora=LoraConfig(rank=2, first_layer=7)).check(tiny)
    many = Mixture(ks=(10,), shots=(0,))
    narrow = dataclasses.replace(CFG, row_tokens=32, mixture=many)
    with pytest.raises(UserError, match="raise train.row_tokens"):
        job(train=narrow).check(tiny)


def _log_of_no_step(step):
    file = step / "log" / "metadata"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"log": []}))


def _half_of_the_state(step):
    files = sorted((step / "state").rglob("*"), key=lambda p: p.is_file() * p.stat().st_size)
    files[-1].write_bytes(files[-1].read_bytes()[: files[-1].stat().st_size // 2])


def _a_bit_of_the_state(step):
    files = sorted((step / "state").rglob("*"), key=lambda p: p.is_file() * p.stat().st_size)
    data = bytearray(files[-1].read_bytes())
    data[len(data) // 2] ^= 1
    files[-1].write_bytes(data)


@pytest.mark.parametrize("damage", [_log_of_no_step, _half_of_the_state, _a_bit_of_the_state])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tiny, tmp_path, caplog, damage):
    whole, log = run(tiny, tmp_path / "c")
    damage(tmp_path / "c" / "6")
    (tmp_path / "c" / "notes").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("years of work")
    again, log_again = run(tiny, tmp_path / "c")
    (line,) = [record for record in caplog.records if "passed over" in record.getMessage()]
    assert str(tmp_path / "c" / "6") in line.getMessage()
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert [row["loss"] for row in log_again] == [row["loss"] for row in log]
    assert (tmp_path / "c" / "thesis.txt").read_text() == "years of work"


def test_where_no_checkpoint_is_whole_training_begins_again(tiny, tmp_path):
    whole, _ = run(tiny, tmp_path / "c")
    for step in ("4", "6"):
        _log_of_no_step(tmp_path / "c" / step)
    again, log = run(tiny, tmp_path / "c")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_of_another_shape_are_passed_over_and_kept(tiny, tmp_path):
    run(tiny, tmp_path / "c")
    _, log = train_with(tiny, "tuned", CFG, LoraConfig(rank=3), tmp_path / "c", seed=0)
    assert len(log) == 6 and {"damaged-4", "damaged-6"} <= {
        p.name for p in (tmp_path / "c").iterdir()
    }
