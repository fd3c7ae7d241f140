"""Computes a run's figures again, and makes its page and TensorBoard files, from its tables alone.

    python -m launch.report --workdir=runs/quickstart
    python -m launch.report --workdir=runs/quickstart --picture=configs/quickstart.svg

No model is needed: every row of metrics.json is a function of the Parquet tables and config.json.
"""

from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.reporting import plots, run_files
from antiimit_jax.reporting.report import schemas
from antiimit_jax.study import write_results
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.control.pictures import before_after
from launch import cli
from launch.saved_config import read_saved
from launch.workdir import print_results

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


def computed_again(workdir: Path) -> Path:
    """Writes metrics.json and what is made from it again; the path of the page.

    Raises:
      UserError: a file of the run is missing, damaged or of another version, or the tables'
        values contradict each other.
    """
    info = run_files.read_metrics(workdir)["run"]
    run_files.check_tables(workdir, info)
    config = read_saved(workdir)
    try:
        return write_results(workdir, config, info)
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir}: its tables contradict each other or themselves ({first_line(error)}); "
            "the run's own command writes them again"
        ) from error


if __name__ == "__main__":
    cli.run(main, lambda: "the tables of the run are as they were; start it again")
