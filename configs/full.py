"""All suites on three adapters of the quickstart's training: hours, which may be interrupted.

    python -m launch.study --config=configs/full.py --workdir=runs/full

It says at its start how long it takes here, and the same command goes on where it stopped. The two
arms of the study, adapters of a narrow and of a broad training, are runs of `control` and `ladder`
alone; the narrow one trains just as this file does. `make full` runs this file and both arms:

    python -m launch.study --config=configs/narrow.py --workdir=runs/narrow
    python -m launch.study --config=configs/broad.py --workdir=runs/broad

What each was trained on of the ladder's rungs is in `configs/rungs.tsv` (L14, words chosen from a
seed, is the suite `seed_words`). For hypothesis F6 the broad adapters become stages of the narrow
run:

    python -m launch.evaluate --config=runs/narrow/config.json --workdir=runs/narrow \\
        --adapter=broad_0=runs/broad/adapter --adapter=broad_1=runs/broad/adapter@1 \\
        --adapter=broad_2=runs/broad/adapter@2
"""

import runpy
from pathlib import Path

import ml_collections

from antiimit_jax.run_config import RunConfig
from antiimit_jax.suites import SUITES
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.tasks.rungs import RUNGS

_QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))


def get_config() -> ml_collections.ConfigDict:
    """The quickstart's training with three seeds; every suite, on all that it has."""
    config = _QUICKSTART["get_config"]()
    config.suites = tuple(SUITES)
    config.train.seeds = (0, 1, 2)
    config.control.n_other = 640  # 80 word sets: F1's bound of .95 is shown by 77 that all pass
    config.ladder.rungs = tuple(RUNGS)[1:]  # L0 always is
    config.ladder.n_sets = RunConfig().ladder.n_sets
    config.drift.n_prompts = len(load_neutral("drift"))
    config.drift.n_continued = RunConfig().drift.n_continued
    for suite in ("scoring", "precision", "residual"):
        config[suite].n_items = RunConfig().of(suite).n_items
    return config
