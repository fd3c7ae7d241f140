"""Computes a run's figures again, and makes its page and TensorBoard files, from its tables alone.

    python -m launch.report --workdir=runs/quickstart

No model is needed: every row of metrics.json is a function of the Parquet tables and config.json.
"""

from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from antiimit_jax.run_config import from_dict
from antiimit_jax.study import write_results
from launch import cli
from launch.workdir import print_results

flags.DEFINE_string("workdir", None, "Folder of a run.")


def main() -> None:
    workdir = Path(cli.needed("workdir"))
    info = run_files.read_metrics(workdir)["run"]
    values = run_files.read_config(workdir)["config"]
    try:
        config = from_dict(values)
    except UserError as error:
        file = workdir / run_files.CONFIG
        raise UserError(f"{file}: of another version; evaluate this run again ({error})") from error
    print_results(write_results(workdir, config, info))


if __name__ == "__main__":
    cli.run(main)
