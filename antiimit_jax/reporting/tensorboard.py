"""TensorBoard files of a run, made from its files alone.

Scalars bear the tags `{stage}/{suite}/{split}/{metric}` (slice "all"), `train/{name}` and
`placebo_train/{name}`; calibration figures are images, sampled prompts are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from antiimit_jax.reporting import plots
from antiimit_jax.reporting.curves import calibration
from antiimit_jax.reporting.rows import Rows, number, page_text
from antiimit_jax.reporting.run_files import Run, read_run
from antiimit_jax.reporting.sections_run import visible

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

SUFFIX = ".antiimit_jax"  # marks the event files that are ours to replace
NOT_SCALARS = {"adapter", "step", "skipped"}  # of the training log


def write_tensorboard(workdir: str | Path) -> Path:
    """Writes `tensorboard/` in a run's folder, replacing what it wrote before; returns the folder.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    from tensorboardX import SummaryWriter  # here: it imports torch wherever torch is installed

    run = read_run(workdir)
    folder = run.path / "tensorboard"
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    writer = SummaryWriter(str(folder), filename_suffix=SUFFIX, write_to_disk=True)
    try:
        _scalars(writer, run)
        _training(writer, run)
        _calibration(writer, run)
        _samples(writer, run)
    finally:
        writer.close()
    return folder


class LiveScalars:
    """Writes training scalars while a run trains; `write_tensorboard` replaces them at its end."""

    def __init__(self, workdir: Path) -> None:
        from tensorboardX import SummaryWriter

        folder = workdir / "tensorboard"
        self._writer = SummaryWriter(str(folder), filename_suffix=SUFFIX, flush_secs=10)

    def add(self, row: dict[str, Any]) -> None:
        """One row of the training log."""
        prefix = "train" if row["adapter"] == "tuned" else f"{row['adapter']}_train"
        for name in row.keys() - NOT_SCALARS:
            if row[name] is not None:
                self._writer.add_scalar(tag(prefix, name), row[name], row["step"])

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def tag(*parts: str) -> str:
    """A tag of TensorBoard's alphabet: "baseline:uniform" becomes "baseline_uniform"."""
    return "/".join(re.sub(r"[^-\w.]", "_", part) for part in parts)


def _scalars(writer: SummaryWriter, run: Run) -> None:
    for row in run.rows:
        if row["slice"] == "all" and row["value"] is not None:
            name = tag(row["stage"], row["suite"], row["split"], row["metric"])
            writer.add_scalar(name, float(row["value"]), 0)


def _training(writer: SummaryWriter, run: Run) -> None:
    if run.training is None:
        return
    names = [name for name in run.training.column_names if name not in NOT_SCALARS]
    columns = {name: run.training[name].to_numpy().astype(float) for name in names}
    steps = run.training["step"].to_pylist()
    for i, (adapter, step) in enumerate(zip(run.training["adapter"].to_pylist(), steps)):
        prefix = "train" if adapter == "tuned" else f"{adapter}_train"
        for name, values in columns.items():
            if np.isfinite(values[i]):
                writer.add_scalar(tag(prefix, name), values[i], step)


def _calibration(writer: SummaryWriter, run: Run) -> None:
    if run.items is None:
        return
    rows = Rows(run.rows)
    for stage in rows.stages("control"):
        for split in rows.splits("control"):
            data = calibration(run.items, stage, "control", split)
            if data is not None:
                drawing = plots.calibration_figure(data, stage, f"{stage}, {split}")
                name = tag(stage, "control", split, "calibration")
                writer.add_image(name, plots.rgb(drawing), 0, dataformats="HWC")


def _samples(writer: SummaryWriter, run: Run) -> None:
    numbers: dict[str, int] = {}
    for sample in run.samples or []:
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
    top = "\n".join(f"{number(word['p'])}  {visible(word['text'])}" for word in sample["top"])
    longest = max((len(run) for run in re.findall("`+", prompt + asked + top)), default=0)
    fence = "`" * max(3, 1 + longest)
    blocks = (f"{fence}\n{text}\n{fence}" for text in (prompt, asked, top))
    return "\n\n".join(
        f"{title}\n\n{block}"
        for title, block in zip(
            (f"item {visible(sample['item'])}", "words", "most probable words"), blocks
        )
    )
