"""Fine-tuning alone: trains the tuned and the placebo adapter of a configuration.

    python -m launch.finetune --config=configs/quickstart.py --workdir=runs/mine
    python -m launch.finetune --workdir=runs/short --config.train.steps=50 --adapters=tuned
    python -m launch.finetune --workdir=runs/own --items=my_items.jsonl

The adapters are written in PEFT's format to WORKDIR/adapter and WORKDIR/placebo. A run that was
stopped goes on with the same command.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.reporting.training_section import in_words
from launch import cli
from launch.commands import installed
from launch.forecast import say_how_long
from launch.place import define_checkpoints
from launch.workdir import kept, open_study

_KINDS = ("tuned", "placebo")
cli.define_config()
cli.define_workdir()
define_checkpoints()
cli.define_material()
cli.define_items()
flags.DEFINE_list("adapters", list(_KINDS), "Which to train, of tuned and placebo.")


def main() -> None:
    unknown = [name for name in cli.FLAGS.adapters if name not in _KINDS]
    if unknown:
        raise UserError(f"--adapters names {', '.join(unknown)}; known: {', '.join(_KINDS)}")
    with open_study("training") as study:
        chosen = [s for s in study.config.stages() if s.kind in cli.FLAGS.adapters]
        say_how_long(study, train=chosen)
        for stage in chosen:
            trained = study.train(stage)
            cli.show(f"{stage.name}: {_how_it_went(study.log(stage) or [])}")
            cli.show(f"  {study.workdir / stage.folder} (sha256 {trained.sha256[:16]})")
        folder = shlex.quote(str(study.workdir))
        told = f"{installed('aij-study')} --config={folder}/config.json --workdir={folder}"
        cli.show(f"next, to measure them: {told}")


def _how_it_went(log: Sequence[dict[str, Any]]) -> str:
    """The last step's loss, and the last look at dev_words."""
    if not log:
        return "no step was taken"
    said = f"{in_words(log[-1], 'loss', 'kl_fwd')} at step {log[-1]['step']}"
    looks = [row for row in log if "dev_tvd" in row]
    if not looks:
        return f"{said}; no look at dev_words (train.eval_every)"
    return f"{said}; {in_words(looks[-1], 'dev_tvd', 'dev_mass')} at step {looks[-1]['step']}"


if __name__ == "__main__":
    cli.run(main, kept)
