"""What a model needs and whether it fits, before anything is downloaded.

    python -m launch.plan --list
    python -m launch.plan --table
    python -m launch.plan --model=qwen2-7b --hardware=v4-8
    python -m launch.plan --model=FOLDER --hardware=cpu-24g --config.train.rows=2 --json

Hardware: v2-8 v3-8 v4-8 v5e-1 v5e-4 v5e-8 v5p-8 v6e-1 v6e-4 v6e-8 (TPUs); a100-40 a100-80 h100 h200
rtx3090 rtx4090 l4 a10 t4 v100 v100-32 (GPUs); cpu-24g and the like. The plan holds for the
configuration that is given: --config and its fields, --suites and --against. Where nothing fits the
exit code is 1.
"""

import sys

import jax
from absl import flags

from antiimit_jax.models.known import find_known, listing, listing_text, n_params
from antiimit_jax.planning.advice import as_dict, fitted
from antiimit_jax.planning.duration import planned_seconds
from antiimit_jax.planning.hardware import HARDWARE, find_hardware
from antiimit_jax.planning.memory import Estimator
from antiimit_jax.planning.overview import overview, overview_text
from antiimit_jax.planning.report import as_text
from antiimit_jax.processor import kept_gflops
from launch import cli
from launch.own_files import check_asked

cli.define_config()
cli.define_suites()
flags.DEFINE_string("hardware", None, "Where it shall run, such as v3-8, a100-40 or cpu-24g.")
flags.DEFINE_bool("list", False, "Print all named models instead.")
flags.DEFINE_bool("table", False, "Print which machine holds which model instead (minutes).")
flags.DEFINE_bool("json", False, "Print JSON.")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # shapes alone: no accelerator is touched
    if cli.FLAGS.list:
        rows = listing()
        cli.show_json(rows) if cli.FLAGS.json else cli.show(listing_text(rows))
        return
    if cli.FLAGS.table:
        jax.config.update("jax_num_cpu_devices", max(m.devices for m in HARDWARE.values()))
        rows = overview(cli.run_config)
        cli.show_json(rows) if cli.FLAGS.json else cli.show(overview_text(rows))
        return
    machine = find_hardware(cli.needed("hardware"))
    jax.config.update("jax_num_cpu_devices", machine.devices)  # to compile for
    asked = cli.run_config(None if machine.kind == "cpu" else machine.kind)
    check_asked(asked)
    model = find_known(asked.model)
    run = fitted(asked, model, machine)
    cli.say(f"compiling {run.model} for shapes alone")
    estimator = Estimator(model, machine.kind, machine.devices)
    seconds = None
    if machine.kind == "cpu":  # this one, or one like it
        seconds = planned_seconds(run, n_params(model.cfg), estimator.work, kept_gflops())
    plan = as_dict(run, estimator, machine, asked.mesh, seconds)
    cli.show_json(plan) if cli.FLAGS.json else cli.show(as_text(plan))
    if not any(program["rescued"] for program in plan["programs"]):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
