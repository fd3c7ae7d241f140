"""Which machine holds which model: one table for models of each size and all named machines."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from antiimit_jax.models.known import find_known, n_params
from antiimit_jax.planning.advice import fitted, judge
from antiimit_jax.planning.hardware import HARDWARE, Hardware
from antiimit_jax.planning.memory import Estimator
from antiimit_jax.run_config import RunConfig

# One of each size; others of the size differ little.
MODELS = ("smollm2-135m", "qwen2-1.5b", "llama-3.2-3b", "llama-2-7b", "llama-3-8b", "gemma-2-9b")
PROGRAMS = ("evaluate", "finetune")


def overview(
    run_on: Callable[[str], RunConfig],
    models: Sequence[str] = MODELS,
    machines: Sequence[Hardware] = tuple(HARDWARE.values()),
) -> list[dict[str, Any]]:
    """A dict for each model and machine: of each program "fits", "flags" (with some) or "no".

    Evaluation is that of the suite `control` alone, which keeps the planning to minutes.

    Args:
      run_on: the configuration on a kind of machine ("tpu", "gpu", "cpu").

    Raises:
      UserError: a model that is not known, or an adapter that does not fit it.
    """
    alike = lambda machine: (machine.kind, machine.devices)
    rows = []
    for name in models:
        model = find_known(name)
        for (kind, devices), some in itertools.groupby(sorted(machines, key=alike), key=alike):
            asked = dataclasses.replace(run_on(kind), suites=("control",))
            estimator = Estimator(model, kind, devices)
            for machine in some:
                run = fitted(asked, model, machine)
                row = {"model": name, "parameters": n_params(model.cfg), "hardware": machine.name}
                for program in PROGRAMS:
                    one = judge(program, run, estimator, machine)
                    row[program] = "fits" if one["fits"] else "flags" if one["rescued"] else "no"
                rows.append(row)
    return rows


def overview_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: a line a machine, a column a model, `PROGRAMS` in each cell."""
    models = {row["model"]: f"{row['parameters'] / 1e9:.2g} B" for row in rows}
    cells = {(row["hardware"], row["model"]): row for row in rows}
    lines = [
        ["", *(f"{name} ({size})" for name, size in models.items())],
        ["---"] * (len(models) + 1),
    ]
    for machine in [name for name in HARDWARE if name in {row["hardware"] for row in rows}]:
        found = [cells[machine, name] for name in models]
        lines.append([machine, *(" / ".join(row[p] for p in PROGRAMS) for row in found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
