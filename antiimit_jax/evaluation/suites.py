"""One stage of a run: all suites asked of one model."""

from __future__ import annotations

from collections.abc import Sequence

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.config import SUITES, ControlConfig, DriftConfig
from antiimit_jax.evaluation.control import Prior, control, precision_error, scoring_variants
from antiimit_jax.evaluation.drift import drift
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.residual import take_apart
from antiimit_jax.evaluation.rulers import apply_ruler
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.evaluation.stage import StageResult


def evaluate(
    runner: Runner,
    variant: Variant,
    stage: str,
    suites: Sequence[str],
    *,
    control_cfg: ControlConfig,
    drift_cfg: DriftConfig,
    forms: str,
    terminators: str,
    seed: int,
    prior: Prior | None,
    progress: Progress,
) -> tuple[StageResult, Prior | None]:
    """Runs the suites on one model; the base's drift stage measures the rulers.

    Args:
      prior: the base's probabilities without percentages from an earlier stage; None measures them.

    Returns:
      The stage's result and the prior, for the next stage.

    Raises:
      UserError: an unknown suite, or an item that does not fit the model.
    """
    for suite in suites:
        if suite not in SUITES:
            raise UserError(f"suite {suite!r} is unknown; use some of {', '.join(SUITES)}")
    result = StageResult()
    if "control" in suites:
        made, prior = control(
            runner,
            variant,
            stage,
            control_cfg,
            forms=forms,
            terminators=terminators,
            seed=seed,
            prior=prior,
            progress=progress,
        )
        result.add(made)
        result.add(
            scoring_variants(
                runner, variant, stage, control_cfg, forms=forms, seed=seed, progress=progress
            )
        )
        if stage == "base":
            result.add(
                precision_error(
                    runner, variant, stage, control_cfg, forms=forms, seed=seed, progress=progress
                )
            )
        result.add(
            take_apart(
                runner,
                variant,
                stage,
                control_cfg,
                terminators=terminators,
                seed=seed,
                progress=progress,
            )
        )
    if "drift" in suites:
        common = dict(seed=seed, n_boot=control_cfg.n_boot, progress=progress)
        if stage == "base":
            for ruler in drift_cfg.rulers:
                changed = runner.with_params(apply_ruler(ruler, runner.lm.params))
                result.add(drift(runner, changed, f"ruler:{ruler}", drift_cfg, **common))
                del changed  # a whole model; the next ruler must not be made beside it
        else:
            result.add(drift(runner, variant, stage, drift_cfg, **common))
    return result, prior
