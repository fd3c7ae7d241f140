"""--help_config: every field of the configuration, with its value, default, bound and meaning."""

import textwrap
from typing import Any

from antiimit_jax.fields import leaves
from antiimit_jax.run_config import RunConfig

_WIDTH = 100


def config_help(config: RunConfig) -> str:
    """Two or more lines for each field, under the name by which a flag sets it."""
    defaults = {name: value for name, (_, value) in leaves(RunConfig()).items()}
    lines = []
    for name, (field, value) in leaves(config).items():
        default = "default" if value == defaults[name] else f"default {_shown(defaults[name])}"
        bound = field.metadata.get("bound")
        says = f"{'each ' if isinstance(value, tuple) else ''}{bound.says}" if bound else ""
        lines.append(f"--config.{name}={_shown(value)} ({default})")
        meaning = "; ".join(filter(None, (field.metadata["doc"], says)))
        lines += textwrap.wrap(meaning, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as a shell hands it to a flag."""
    text = str(value)
    return text if text and not set(text) & set(" ()'") else f'"{text}"'
