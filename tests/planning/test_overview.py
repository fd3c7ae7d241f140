"""The table of machines and models: what it says of a tiny model, and that the page's is true."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from antiimit_jax.models.known import find_known
from antiimit_jax.planning.hardware import HARDWARE, Hardware
from antiimit_jax.planning.memory import Estimator, peak
from antiimit_jax.planning.overview import overview, overview_text
from antiimit_jax.run_config import RunConfig, from_dict
from tests.tiny_model import write_tiny_model

PAGE = Path(__file__).parents[2] / "launch" / "cloud" / "README.md"


def test_a_machine_holds_a_model_or_does_with_flags_or_does_not(tmp_path):
    folder = str(write_tiny_model(tmp_path / "tiny", hidden_size=64, scale=0.0))
    small = from_dict({"suites": ["control"], "control": {"n_items": 4, "splits": ["train"]}})
    run = small.on("gpu")
    estimator = Estimator(find_known(folder), "gpu")
    training = peak(estimator.finetune(run))
    most = max(training, peak(estimator.evaluate(run)))

    def machine(name: str, size: int) -> Hardware:
        return dataclasses.replace(HARDWARE[name], device_bytes=size)

    roomy, tiny = machine("h100", 2 * most), machine("t4", 2**20)
    rows = overview(lambda kind: small.on(kind), (folder,), (roomy, tiny))
    said = {row["hardware"]: (row["evaluate"], row["finetune"]) for row in rows}
    assert said == {"h100": ("fits", "fits"), "t4": ("no", "no")}
    tight = machine("a10", int(training / 0.75) - 2**10)  # a little less than it takes
    (row,) = overview(lambda kind: small.on(kind), (folder,), (tight,))
    assert row["finetune"] == "flags"
    lines = overview_text(rows).splitlines()
    assert lines[2] == "| h100 | fits / fits |" and lines[3] == "| t4 | no / no |"


@pytest.mark.large
@pytest.mark.parametrize("model", ["smollm2-135m", "llama-3-8b"])
def test_the_page_says_what_the_planner_says(model):
    table = [line.split(" | ") for line in PAGE.read_text("utf-8").splitlines() if "| " in line]
    head = next(cells for cells in table if any(model in cell for cell in cells))
    column = next(i for i, cell in enumerate(head) if cell.startswith(model))
    for row in overview(lambda kind: RunConfig().on(kind), (model,)):
        line = next(cells for cells in table if cells[0] == f"| {row['hardware']}")
        assert line[column].strip(" |") == f"{row['evaluate']} / {row['finetune']}", row
