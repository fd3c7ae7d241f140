"""Computes a run's figures again, and makes its page and TensorBoard files, from its tables alone.

    python -m launch.report --workdir=runs/quickstart
    python -m launch.report --workdir=runs/quickstart --picture=configs/quickstart.svg

No model is needed: every row of metrics.json is a function of the Parquet tables and config.json.
"""

from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import plots, run_files
from antiimit_jax.reporting.report import schemas
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.control.pictures import before_after
from launch import cli
from launch.workdir import computed_again, print_results

flags.DEFINE_string("workdir", None, "Folder of a run.")
flags.DEFINE_string("picture", None, "An SVG file: calibration before and after fine-tuning.")


def main() -> None:
    workdir = Path(cli.needed("workdir"))
    report = computed_again(workdir)
    if cli.FLAGS.picture:
        run = run_files.read_run(workdir, schemas(SUITES))
        picture = before_after(run.tables, run.rows)
        if picture is None:
            raise UserError("--picture: this run holds no requests for two words on heldout_words")
        svg = plots.svg(picture.drawing, picture.name, picture.label)
        on_white = svg.replace("<svg", '<svg style="background:#fff"', 1)
        run_files.write_text(Path(cli.FLAGS.picture), on_white)
    print_results(report)


if __name__ == "__main__":
    cli.run(main, lambda: "the tables of the run are as they were; start it again")
