"""A second model that suites compare the first with: any model, or an adapter of the first."""

import dataclasses
from pathlib import Path

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.held_file import HeldFiles
from antiimit_jax.models.peft import Adapter, load_adapter
from antiimit_jax.models.peft_config import CONFIG_FILE
from antiimit_jax.models.peft_write import WEIGHTS_FILE
from antiimit_jax.models.quantized import check_format
from antiimit_jax.models.weights import find_model, load_config
from antiimit_jax.parallel import mesh_name
from antiimit_jax.results import Stage


def check_second(name: str, lm: LanguageModel) -> Adapter | None:
    """Reads what can be read of it without its weights; an adapter as a whole.

    Args:
      name: a model as in `--model`, or the folder of an adapter for `lm`.

    Raises:
      UserError: no such model, or one that is not ported; an adapter that does not fit.
    """
    try:
        folder = Path(name).expanduser()
        if (folder / CONFIG_FILE).is_file():
            return load_adapter(folder, lm.cfg)
        check_format(load_config(find_model(name)), lm.quantize, name)
    except UserError as error:
        raise UserError(f"--against={name}: {_plain(error, name)}") from error
    return None


def second_files(name: str, *, fetch: bool = True) -> HeldFiles:
    """All that decides what the second model answers, held from now on.

    Args:
      fetch: as `find_model` has it.

    Raises:
      UserError: no such model, or a file that cannot be opened.
    """
    try:
        folder = Path(name).expanduser()
        if (folder / CONFIG_FILE).is_file():
            return HeldFiles(folder, (CONFIG_FILE, WEIGHTS_FILE))
        return find_model(name, fetch=fetch).files
    except UserError as error:
        raise UserError(f"--against={name}: {_plain(error, name)}") from error


def with_second(asker: LocalAsker, name: str) -> LocalAsker:
    """The asker of a base with the second model as its `other`; any other as it is.

    A second model lies beside the first on its devices as long as the asker does, and is asked in
    the format that it is made for.

    Raises:
      UserError: as `check_second`, or for its weights.
    """
    if not name or asker.stage.kind != "base":
        return asker
    runner, stage = asker.runner, Stage(name="against", kind="other", folder=name)
    if adapter := check_second(name, runner.lm):
        variant = runner.adapted(adapter.tree, adapter.scale)
    else:
        first, mesh = runner.lm, mesh_name(*runner.lm.mesh.axis_sizes)
        how = dict(dtype=asker.dtype, quantize=first.quantize, mesh=mesh)
        try:
            lm = load_language_model(name, prompt_date=first.tokenizer.prompt_date, **how)
        except UserError as error:
            raise UserError(f"--against={name}: {_plain(error, name)}") from error
        runner = Runner(lm)
        variant = runner.base
    other = dataclasses.replace(asker, runner=runner, variant=variant, stage=stage)
    return dataclasses.replace(asker, other=other)


def _plain(error: UserError, name: str) -> str:
    return str(error).removeprefix(f"--model={name}: ").removeprefix(f"{name}: ")
