"""The main job: measure a model, fine-tune it, measure again, write the page that shows both.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart
    python -m launch.study --workdir=runs/short --config.train.steps=50 --config.seed=1
    python -m launch.study --model=/models/my-llama --workdir=runs/mine

A study that was stopped goes on with the same command; --overwrite starts anew.
"""

from absl import flags

from antiimit_jax.reporting.summary import console_table
from antiimit_jax.study import Study
from launch import cli
from launch.workdir import open_workdir

cli.define_config()
cli.define_workdir()
flags.DEFINE_list("suites", None, "What to evaluate, of control and drift; else the config's.")


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
            cli.say("1/5 the model as it is")
            study.evaluate("base", None)
            for number, adapter in ((2, "tuned"), (4, "placebo")):
                cli.say(f"{number}/5 fine-tuning: {adapter}")
                trained = study.train(adapter)
                cli.say(f"{number + 1}/5 the {adapter} model")
                study.evaluate(adapter, trained)
        report = study.write()
        print(console_table(workdir), end="")
        print(f"report: {report}")
        print(f"TensorBoard: tensorboard --logdir {workdir / 'tensorboard'}")


if __name__ == "__main__":
    cli.run(main)
