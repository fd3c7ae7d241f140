"""The main job: measure a model, fine-tune it, measure again, write the page that shows both.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart
    python -m launch.study --workdir=runs/short --config.train.steps=50 --config.seed=1
    python -m launch.study --model=/models/my-llama --workdir=runs/mine

A study that was stopped goes on with the same command; --overwrite measures anew, --overwrite=all
trains anew too.
"""

import shlex
import time

from launch import cli
from launch.commands import installed
from launch.forecast import say_how_long
from launch.place import define_checkpoints
from launch.workdir import kept, open_study, print_results

cli.define_config()
cli.define_workdir()
define_checkpoints()
cli.define_material()
cli.define_suites()


def main() -> None:
    began = time.monotonic()
    with open_study("training", "evaluation") as study:
        if study.finished:
            cli.say(
                "this study is done; --overwrite measures anew, --overwrite=all trains anew too"
            )
        else:
            base, *adapters = study.config.stages()
            parts = 1 + 2 * len(adapters)
            say_how_long(study, study.config.stages(), study.config.stages())
            cli.say(f"1/{parts} the model as it is")
            study.evaluate(base)
            for number, stage in enumerate(adapters):
                cli.say(f"{2 * number + 2}/{parts} fine-tuning: {stage.name}")
                trained = study.train(stage)
                cli.say(f"{2 * number + 3}/{parts} the {stage.name} model")
                study.evaluate(stage, trained)
        print_results(study.write())
        cli.say(f"took {(time.monotonic() - began) / 60:.1f} minutes")
        folder = shlex.quote(str(study.workdir / "tensorboard"))
        cli.show(f"TensorBoard: {installed('tensorboard')} --logdir {folder}")


if __name__ == "__main__":
    cli.run(main, kept)
