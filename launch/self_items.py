"""Items that train a model to tell its own next word: the positive control of `introspection`.

    python -m launch.self_items --model=M --out=self.jsonl
    python -m launch.finetune --items=self.jsonl --adapters=tuned --config.train.row_tokens=128 \\
        --config.train.steps=100 --model=M --workdir=runs/self
    python -m launch.evaluate --adapter=self_trained=runs/self/adapter --suites=introspection ...

SmolLM2-135M-Instruct gains .47 [.21, .73] of the next word's score in 100 steps, told of texts and
words of other kinds than those it was trained on; the quickstart's adapter gains nothing (-.14
[-.89, .25]). An adapter of the name "self_trained" that does not raise that score says that the
suite can show nothing of this model: its verdicts are then "floor".
"""

from pathlib import Path

from absl import flags

from antiimit_jax.configured import asker_of, load_model
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.parallel import keeps
from antiimit_jax.results import BASE
from antiimit_jax.suites.introspection.arm import training_items
from antiimit_jax.tasks.self_report import MOST_TEXTS
from launch import cli
from launch.item_file import write_items

cli.define_config()
flags.DEFINE_string("out", None, "The file to write, JSONL.")
flags.DEFINE_integer("n_texts", 400, "Texts, each asked about in four orders.", 1, MOST_TEXTS)


def main() -> None:
    config, out = cli.run_config(), Path(cli.needed("out")).expanduser()
    runner = Runner(load_model(config))
    asker = asker_of(runner, runner.base, BASE, config, cli.bar)
    items = training_items(asker, cli.FLAGS.n_texts)
    if keeps():
        write_items(out, items)


if __name__ == "__main__":
    cli.run(main)
