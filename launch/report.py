"""Makes report.html and the TensorBoard files of a run again, from its files alone.

python -m launch.report --workdir=runs/quickstart
"""

from pathlib import Path

from absl import flags

from antiimit_jax.reporting.report import write_report
from antiimit_jax.reporting.summary import console_table
from antiimit_jax.reporting.tensorboard import write_tensorboard
from launch import cli

flags.DEFINE_string("workdir", None, "Folder of a run.")


def main() -> None:
    workdir = Path(cli.needed("workdir"))
    report = write_report(workdir)
    write_tensorboard(workdir)
    print(console_table(workdir), end="")
    print(f"report: {report}")


if __name__ == "__main__":
    cli.run(main)
