"""Items from multiple-choice questions of others, such as SAD's, asked with exact probabilities.

    python -m launch.choice_items --questions=FILE.yaml --questions=OTHER.yaml --out=choices.jsonl
    python -m launch.evaluate --items=choices.jsonl --suites=control --workdir=runs/choices

The files' layout stands in `tasks/choices.py`. Each question is asked with its right option in each
place once, and an answer begins "Answer: (". In `control`, 1 less the TVD is the exact probability
of the right option's letter, and an answer by place alone has that of guessing. Authors may
ask that their questions never stand in plain text where they can be copied from: that then goes for
what is written here and for the tables of the run too.
"""

from pathlib import Path

from absl import flags

from antiimit_jax.tasks.choices import choice_items, load_questions
from launch import cli
from launch.item_file import write_items

flags.DEFINE_multi_string("questions", None, "A file of questions; may be given several times.")
flags.DEFINE_string("out", None, "The file to write, JSONL.")
flags.DEFINE_bool("skip_bad_items", False, "Leave out samples that are no questions; count them.")


def main() -> None:
    out, files = Path(cli.needed("out")).expanduser(), cli.needed("questions")
    faults: list[str] | None = [] if cli.FLAGS.skip_bad_items else None
    questions = [question for file in files for question in load_questions(file, faults)]
    if faults:
        cli.say(f"{len(faults)} samples are left out; the first: {faults[0]}")
    write_items(out, choice_items(questions), "ask with python -m launch.evaluate --suites=control")


if __name__ == "__main__":
    cli.run(main)
