"""The main job: measure a model, fine-tune it, measure again, write the page that shows both.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart
    python -m launch.study --workdir=runs/short --config.train.steps=50 --config.seed=1
    python -m launch.study --model=/models/my-llama --workdir=runs/mine

A study that was stopped goes on with the same command; --overwrite starts anew.
"""

from antiimit_jax.reporting.summary import console_table
from antiimit_jax.study import Study
from antiimit_jax.suites import SUITES
from launch import cli
from launch.workdir import open_workdir

cli.define_config()
cli.define_workdir()
cli.define_suites()


def main() -> None:
    config = cli.run_config()
    name = cli.needed("workdir")
    with (
        open_workdir(name, config, overwrite=cli.FLAGS.overwrite) as workdir,
        cli.progress(workdir) as progress,
    ):
        study = Study(config, workdir, tell=cli.say, progress=progress)
        if study.finished:
            cli.say("this study is done; --overwrite starts it anew")
        else:
            base, *adapters = config.stages()
            parts = 1 + 2 * len(adapters)
            cli.say(f"1/{parts} the model as it is")
            study.evaluate(base)
            for number, stage in enumerate(adapters):
                cli.say(f"{2 * number + 2}/{parts} fine-tuning: {stage.name}")
                trained = study.train(stage)
                cli.say(f"{2 * number + 3}/{parts} the {stage.name} model")
                study.evaluate(stage, trained)
        report = study.write()
        print(console_table(workdir, SUITES), end="")
        print(f"report: {report}")
        print(f"TensorBoard: tensorboard --logdir {workdir / 'tensorboard'}")


if __name__ == "__main__":
    cli.run(main)
