"""A plan's figures against the peaks of the real programs on this machine, for two sizes.

Memory is anonymous plus shared memory, sampled while the program runs: mapped files do not count.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from antiimit_jax.models.catalog import CATALOG
from tests.launch.processes import ROOT, bare_environment, command, peak_memory
from tests.tiny_model import write_tiny_model

SMALL = "smollm2-135m-instruct"
FLAGS = (
    "--config.control.n_items=8",
    "--config.residual.n_items=4",
    "--config.scoring.n_items=4",
    "--config.precision.n_items=4",
    "--config.ladder.rungs=('L6',)",
    "--config.ladder.n_sets=1",
    "--config.n_boot=0",
    "--config.drift.n_prompts=3",
    "--config.drift.rulers=('bf16',)",
    "--config.train.steps=2",
)
WITHIN = 0.15

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def larger(tmp_path_factory) -> str:
    """A random model of SmolLM2-360M's shape."""
    folder = tmp_path_factory.mktemp("model") / "m360"
    return str(write_tiny_model(folder, scale=0.02, **CATALOG["smollm2-360m"].config))


def uncached(cache: Path) -> dict[str, str]:
    """A bare process whose caches are empty: a GGUF file's weights, once there, are mapped."""
    empty = {"ANTIIMIT_JAX_CACHE": str(cache), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return bare_environment() | empty


def measured_peak(program: str, cache: Path, *flags: str) -> float:
    result, peak = peak_memory(command(program, *flags), uncached(cache / program))
    assert result.returncode == 0, result.stderr
    return peak


@pytest.mark.parametrize("size", ["135m", "360m"])
def test_the_plan_is_within_15_percent_of_what_is_measured(size, larger, tmp_path):
    model = SMALL if size == "135m" else larger
    flags = (f"--model={model}", *FLAGS)
    made = subprocess.run(
        command("plan", *flags, "--hardware=cpu-64g", "--json"),
        cwd=ROOT,
        env=uncached(tmp_path / "plan"),
        capture_output=True,
        text=True,
        check=True,
    )
    planned = {p["program"]: p["peak"] for p in json.loads(made.stdout)["programs"]}
    found = {
        "evaluate": measured_peak("evaluate", tmp_path, *flags, f"--workdir={tmp_path / 'asked'}"),
        "finetune": measured_peak(
            "finetune", tmp_path, *flags, "--adapters=tuned", f"--workdir={tmp_path / 'tuned'}"
        ),
    }
    for program, bytes_found in found.items():
        assert planned[program] == pytest.approx(bytes_found, rel=WITHIN), (program, planned, found)
