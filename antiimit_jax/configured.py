"""What a configuration names: its model, and askers by its rule of scoring and its seeds."""

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import Progress, silent
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.results import Stage
from antiimit_jax.run_config import RunConfig


def load_model(config: RunConfig) -> LanguageModel:
    """The model that a configuration names, as it says.

    Raises:
      UserError: as `load_language_model`.
    """
    return load_language_model(
        config.model,
        revision=config.revision or None,
        dtype=config.dtype,
        quantize=config.quantize,
        prompt_format=config.prompt_format,
        prompt_date=config.prompt_date,
        mesh=config.mesh,
    )


def asker_of(
    runner: Runner, variant: Variant, stage: Stage, config: RunConfig, progress: Progress = silent
) -> LocalAsker:
    """What suites ask of one stage, by a configuration's rule of scoring and seeds."""
    return LocalAsker(
        runner=runner,
        variant=variant,
        stage=stage,
        scoring=config.rule,
        seed=config.seed,
        eval_seed=config.eval_seed,
        progress=progress,
    )
