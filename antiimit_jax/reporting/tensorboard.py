"""TensorBoard files of a run, made from its files alone.

Curves over training steps bear the tags `train/{name}` and `placebo_train/{name}`; the headline
figures of a stage stand at its adapter's last step as `{stage}/{suite}/{split}/{metric}` and, with
the settings, under HPARAMS. Calibration figures are images, sampled prompts are text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from antiimit_jax.files import naming
from antiimit_jax.reporting import plots
from antiimit_jax.reporting.report import Suites, headline_places, schemas
from antiimit_jax.reporting.rows import number, page_text, value_of, visible
from antiimit_jax.reporting.run_files import Run, read_run
from antiimit_jax.reporting.training_section import step_counts
from antiimit_jax.trees import flat

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

SUFFIX = ".antiimit_jax"  # marks the event files that are ours to replace


def write_tensorboard(workdir: str | Path, suites: Suites) -> Path:
    """Writes `tensorboard/` in a run's folder, replacing what it wrote before; returns the folder.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir, schemas(suites))
    folder = run.path / "tensorboard"
    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    with naming(folder), open_writer(run.path) as writer:
        _headlines(writer, run, suites)
        log = run.training or {}
        for values in zip(*log.values()):
            add_step(writer, dict(zip(log, values)))
        _of_suites(writer, run, suites)
    return folder


def open_writer(workdir: Path) -> SummaryWriter:
    """Writes to `tensorboard/`, also while a run trains; `write_tensorboard` replaces that.

    Raises:
      OSError: here and at each value (`add_step`, `close_writer`), the file cannot be written.
    """
    from tensorboardX import SummaryWriter  # here: it imports torch wherever torch is installed

    folder = workdir / "tensorboard"
    with naming(folder):
        writer = SummaryWriter(str(folder), filename_suffix=SUFFIX)
    # Its thread would end at a full disk, and the program wait for it for ever.
    events = writer.file_writer.event_writer
    events._worker.stop()
    events.add_event = events._ev_writer.write_event
    return writer


def add_step(writer: SummaryWriter, row: Mapping[str, Any]) -> None:
    """The scalars of one row of the training log."""
    prefix = "train" if row["adapter"] == "tuned" else f"{row['adapter']}_train"
    for name, value in row.items():
        known = name in ("adapter", "step", "skipped") or value is None
        if not known and np.isfinite(value):
            writer.add_scalar(tag(prefix, name), value, int(row["step"]))
    with naming(Path(writer.logdir)):
        writer.flush()


def close_writer(writer: SummaryWriter) -> None:
    """Ends what `open_writer` began.

    Raises:
      OSError: the last values cannot be written.
    """
    with naming(Path(writer.logdir)):
        writer.close()


def tag(*parts: str) -> str:
    """A tag of TensorBoard's alphabet: "baseline:uniform" becomes "baseline_uniform"."""
    return "/".join(re.sub(r"[^-\w.]", "_", part) for part in parts)


def _headlines(writer: SummaryWriter, run: Run, suites: Suites) -> None:
    """The headline figures of every stage, and as metrics of the settings the subject's."""
    from tensorboardX.summary import hparams

    steps, metrics = step_counts(run), {}
    for suite, module in suites.items():
        shown = [figure.name for figure in getattr(module, "HEADLINE", ())]
        stages, subject = run.rows.stages(suite), run.rows.subject(suite)
        places = headline_places(suite, module, run.rows)
        for stage, here, name in itertools.product(stages, places, shown):
            value = value_of(run.rows.get(stage, suite, *here, name))
            if value is not None:
                at = tag(stage, suite, here[0], name)
                writer.add_scalar(at, value, steps.get(stage, 0))
                metrics |= {at: value} if stage == subject else {}
    if run.config and metrics:
        plain = lambda value: value if isinstance(value, bool | int | float) else str(value)
        settings = {key: plain(value) for key, value in flat(run.config["config"]).items()}
        for part in hparams(settings, metrics):
            writer.file_writer.add_summary(part)


def _of_suites(writer: SummaryWriter, run: Run, suites: Suites) -> None:
    """Images and sampled prompts of those suites that have some."""
    numbers: dict[str, int] = {}
    for suite in suites.values():
        if hasattr(suite, "images"):
            for name, picture in suite.images(run.tables, run.rows).items():
                writer.add_image(tag(*name), plots.rgb(picture.drawing), 0, dataformats="HWC")
        for sample in suite.samples(run.tables) if hasattr(suite, "samples") else ():
            stage = sample["stage"]
            step = numbers[stage] = numbers.get(stage, -1) + 1
            writer.add_text(tag(stage, "samples"), sample_markdown(sample), step)


def sample_markdown(sample: dict) -> str:
    """One sampled prompt as Markdown: the prompt, the words asked and given, the top words.

    Model text stands only inside code fences longer than any run of backticks in it.
    """
    prompt = page_text(sample["prompt"])
    asked = "\n".join(
        f"{visible(word):<24} asked {number(t)}  given {number(q)}"
        for word, t, q in zip(sample["words"], sample["targets"], sample["q"])
    )
    pairs = zip(sample["top_text"], sample["top_p"])
    top = "\n".join(f"{number(p)}  {visible(text)}" for text, p in pairs)
    longest = max(map(len, re.findall("`+", prompt + asked + top)), default=0)
    fence = "`" * max(3, 1 + longest)
    blocks = {f"item {visible(sample['item'])}": prompt, "words": asked, "most probable words": top}
    return "\n\n".join(f"{title}\n\n{fence}\n{text}\n{fence}" for title, text in blocks.items())
