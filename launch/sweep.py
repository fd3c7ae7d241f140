"""A study in many cells, one after another: learning curves, or skill against drift.

    python -m launch.sweep --config=configs/curves.py --workdir=runs/curves
    python -m launch.sweep --config=configs/frontier.py --workdir=runs/frontier

The config file says with `get_sweep` which cells there are: each is a run of its own, in
WORKDIR/SERIES/CELL, of the base and of tuned adapters, without a placebo. After each cell
WORKDIR/sweep.tsv and WORKDIR/sweep.svg hold the cells that are done. A sweep that was stopped goes
on with the same command.
"""

import runpy
from pathlib import Path

from antiimit_jax.errors import UserError
from antiimit_jax.parallel import keeps
from antiimit_jax.reporting.sweep import Sweep, write_sweep
from antiimit_jax.results import BASE
from antiimit_jax.run_config import RunConfig, from_dict, to_dict
from antiimit_jax.trees import flat, nested
from launch import cli
from launch.forecast import say_how_long
from launch.workdir import locked, open_run

cli.define_config()
cli.define_workdir()
cli.define_material()
cli.define_suites()


def read_sweep(file: str) -> Sweep:
    """The sweep of a config file.

    Raises:
      UserError: the file has none.
    """
    made = runpy.run_path(file).get("get_sweep") if file.endswith(".py") else None
    if made is None:
        raise UserError(f"--config={file}: has no get_sweep; name one that has, configs/curves.py")
    return made()


def run_cell(run: RunConfig, folder: Path) -> None:
    """What of a cell is not there yet: the base, the tuned adapters, their figures."""
    what = cli.FLAGS.overwrite
    with locked(str(folder)) as workdir, cli.progress(workdir) as progress:
        with open_run(run, workdir, overwrite=what, progress=progress) as study:
            tuned = [stage for stage in study.config.stages() if stage.kind == "tuned"]
            say_how_long(study, tuned, [BASE, *tuned], "for this cell")
            study.evaluate(BASE)
            for stage in tuned:
                study.evaluate(stage, study.train(stage))
            study.write()


def kept() -> str:
    """What a stopped sweep has in its folder."""
    command = f"the same command{' without --overwrite' if cli.FLAGS.overwrite else ''}"
    return f"the cells in {cli.FLAGS.workdir} stay; {command} goes on from there"


def main() -> None:
    sweep = read_sweep(cli.FLAGS["config"].config_filename)
    root = Path(cli.needed("workdir")).expanduser()
    fields = flat(to_dict(cli.run_config()))
    runs = {
        folder: from_dict(nested(fields | dict(changed)))
        for folder, changed in sweep.folders(root).items()
    }
    for number, (folder, run) in enumerate(runs.items(), 1):
        cli.say(f"{number}/{len(runs)} {folder.relative_to(root)}")
        run_cell(run, folder)
        if keeps():
            write_sweep(root, sweep)
    cli.show(f"{root / 'sweep.tsv'}\n{root / 'sweep.svg'}")


if __name__ == "__main__":
    cli.run(main, kept)
