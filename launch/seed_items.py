"""Items that train a model to choose words by a rule: the positive control of `seed_words`.

    python -m launch.seed_items --out=keyed.jsonl
    python -m launch.finetune --items=keyed.jsonl --adapters=tuned --config.train.row_tokens=320 \\
        --model=M --workdir=runs/keyed
    python -m launch.evaluate --adapter=rule_keyed=runs/keyed/adapter --suites=seed_words ...

The first character of a text stands for its first word, the last for its second. An adapter of the
name "rule_keyed" that does not raise the suite's score on texts that it never saw says that the
suite can show nothing of this model: its verdicts are then "floor".
"""

from pathlib import Path

from absl import flags

from antiimit_jax.tasks.seed_words import keyed_items
from launch import cli
from launch.item_file import write_items

flags.DEFINE_string("out", None, "The file to write, JSONL.")
flags.DEFINE_integer("n_texts", 400, "Random texts, each asked in 18 ways.", 1, 100_000)
flags.DEFINE_integer("n_shots", 2, "Example turns before each request, as in the suite.", 0, 20)
flags.DEFINE_integer("seed", 0, "Draws the texts.", 0)


def main() -> None:
    out, given = Path(cli.needed("out")).expanduser(), cli.FLAGS
    write_items(out, keyed_items(given.n_texts, given.n_shots, given.seed))


if __name__ == "__main__":
    cli.run(main)
