"""Runs of several models, compared: are larger ones better (E1), are base models better (E2)?

    python -m launch.compare --runs=runs/small --runs=runs/large --workdir=runs/compared
    python -m launch.compare --runs=A --runs=B --models=mine.jsonl --workdir=runs/compared

Each run is of launch.evaluate or launch.study; what is compared is the model as it is, without
adapters, on the items that all runs hold. Families and pairs are the catalog's. Of models that it
does not know, --models tells: a line each, such as {"model": "my-1b-chat", "family": "my",
"post_trained": true, "pair": "my-1b"}, where "model" is what --model named (of a folder, its path
or the last part of it), and both models of a pair have the same "pair". "parameters" is needed
where the model's files are no longer there, "format" ("base" or "chat") where the run's
prompt_format was auto.

For E2 both models of a pair are asked in both formats: --config.prompt_format=base and =chat. A
base model without a chat template is asked in its counterpart's: copy the base's files to a folder,
and the counterpart's chat_template.jinja to them, and tell of that folder in --models.
"""

from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, make_folder
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.between_models import compare
from antiimit_jax.reporting.compare_page import console_lines, write_comparison
from antiimit_jax.reporting.needed_runs import ask_command
from launch import cli
from launch.commands import installed
from launch.compared_runs import compared_models, read_about, read_runs, what_else_differs

flags.DEFINE_multi_string("runs", [], "Folder of a finished run; give it once for each run.")
flags.DEFINE_string("models", None, "JSONL file: family and pair of models not in the catalog.")
flags.DEFINE_string("workdir", None, "Folder for compare.json and compare.html.")


def main() -> None:
    if len(cli.FLAGS.runs) < 2:
        raise UserError("--runs: name two runs or more, as --runs=runs/small --runs=runs/large")
    workdir = Path(cli.needed("workdir")).expanduser()
    if (workdir / MARK).exists() or (workdir.exists() and not workdir.is_dir()):
        raise UserError(f"--workdir={workdir}: a run's folder, or a file; name another folder")
    about = read_about(cli.FLAGS.models)
    runs = read_runs(cli.FLAGS.runs)
    first = runs[0]
    models = compared_models(runs, about)
    config, revision = first.folder / run_files.CONFIG, first.config.revision
    ask = ask_command(installed("aij-evaluate"), config, revision)
    found = compare(models, Bootstrap(), ask)
    n, sets = len(first.answers.k), len(set(first.answers.cluster))
    asked = (
        f"Each model, as it is, was asked the same {n} plain requests for two words, of {sets} "
        f"word sets ({first.split}); all probabilities are exact."
    )
    notes = what_else_differs(runs)
    for note in notes:
        cli.say(f"note: {note}")
    make_folder(workdir)
    page = write_comparison(workdir, found, asked, notes)
    cli.show(f"{console_lines(found)}report: {page}")


if __name__ == "__main__":
    cli.run(main)
