"""Evaluation alone: a model, with or without adapters, beside its base.

    python -m launch.evaluate --model=smollm2-135m-instruct --workdir=runs/base --suites=control
    python -m launch.evaluate --adapter=mine=runs/quickstart/adapter --workdir=runs/again
    python -m launch.evaluate --suites=control --items=my_items.jsonl --workdir=runs/own

The base comes first, then every adapter, as a stage of its own name: "mine" here, "adapter" where
only a folder is given. An adapter may be anybody's PEFT LoRA.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.results import BASE, Stage, stage_named
from antiimit_jax.study import Study
from launch import cli, hosts
from launch.forecast import say_how_long
from launch.workdir import kept, open_study, print_results

_NAME = re.compile(r"[A-Za-z0-9_-]+")

cli.define_config()
cli.define_workdir()
cli.define_material()
cli.define_items()
flags.DEFINE_multi_string("adapter", [], "PEFT LoRA adapters to compare: FOLDER or NAME=FOLDER.")
cli.define_suites()


def foreign_stages(given: Sequence[str]) -> list[Stage]:
    """The stages of adapters given as FOLDER or NAME=FOLDER.

    Raises:
      UserError: a name that a file cannot bear, that two share or that the run's own stages have.
    """
    stages: list[Stage] = []
    for text in given:
        name, named, folder = text.partition("=")
        if not named or "/" in name:
            name, folder = "adapter", text
        if not _NAME.fullmatch(name):
            raise UserError(f"--adapter={text}: a name is of letters, digits, _ and -")
        if stage_named(name).kind != "other":
            raise UserError(f"--adapter={text}: {name} is a stage of the run itself; name another")
        if name in [stage.name for stage in stages]:
            hint = "name them, as --adapter=NAME=FOLDER"
            raise UserError(f"--adapter={text}: two adapters are called {name}; {hint}")
        stages.append(Stage(name=name, kind="other", folder=folder))
    return stages


def main() -> None:
    given, adapters = foreign_stages(cli.FLAGS.adapter), {}

    def read(study: Study) -> None:
        for stage in given:
            inside = Path(stage.folder).resolve().is_relative_to(study.workdir.resolve())
            if inside and cli.FLAGS.overwrite == "all":
                hint = "lies in the run that --overwrite=all deletes; --overwrite=results keeps it"
                raise UserError(f"--adapter={stage.folder}: {hint}")
            adapters[stage] = cli.read_adapter(stage.folder, study.lm.cfg, study.config.model)
        hosts.agree({"adapter": {stage.name: of.sha256 for stage, of in adapters.items()}})
        study.check_adapters(adapters)

    with open_study("evaluation", check=read) as study:
        say_how_long(study, ask=[BASE, *adapters])
        study.evaluate(BASE)
        for stage, adapter in adapters.items():
            study.evaluate(stage, adapter)
        print_results(study.write())


if __name__ == "__main__":
    cli.run(main, kept)
