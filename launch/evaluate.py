"""Evaluation alone: a model, with or without an adapter, beside its base.

    python -m launch.evaluate --model=smollm2-135m-instruct --workdir=runs/base --suites=control
    python -m launch.evaluate --adapter=runs/quickstart/adapter --workdir=runs/again

Without --adapter the base is measured alone; with it the base comes first, then the adapter, as the
stages "base" and "tuned" of a run. The adapter may be anybody's PEFT LoRA.
"""

from absl import flags

from antiimit_jax.reporting.summary import console_table
from antiimit_jax.study import Study
from launch import cli
from launch.workdir import open_workdir

cli.define_config()
cli.define_workdir()
flags.DEFINE_string("adapter", None, "Folder of a PEFT LoRA adapter.")
flags.DEFINE_list("suites", None, "What to evaluate, of control and drift; else the config's.")


def main() -> None:
    config = cli.run_config()
    name = cli.needed("workdir")
    with (
        open_workdir(name, config, overwrite=cli.FLAGS.overwrite) as workdir,
        cli.progress(workdir) as progress,
    ):
        study = Study(config, workdir, tell=cli.say, progress=progress)
        folder = cli.FLAGS.adapter
        adapter = cli.read_adapter(folder, study.lm.cfg, config.model) if folder else None
        study.evaluate("base", None)
        if adapter is not None:
            study.evaluate("tuned", adapter)
        report = study.write()
        print(console_table(workdir), end="")
        print(f"report: {report}")


if __name__ == "__main__":
    cli.run(main)
