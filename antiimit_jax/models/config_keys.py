"""Reading a `config.json` key by key, so that none is read in two ways or dropped unseen."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """From where to where a number makes sense."""

    least: float
    most: float

    def __contains__(self, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a positive number from {self.least:g} to {self.most:g}"


# Far wider than any release needs: what lies outside is a damaged file, or overflows float32.
SCALE = Range(1e-6, 1e6)  # of factors, caps and LoRA's alpha
EPSILON = Range(1e-15, 0.1)
ROPE_BASE = Range(2.0, 1e13)
# Keys that change nothing about the logits of one forward pass.
_HARMLESS = frozenset(
    """architectures bos_token_id eos_token_id pad_token_id unk_token_id torch_dtype
    dtype transformers_version use_cache initializer_range pretraining_tp attention_dropout
    resid_pdrop embd_pdrop is_llama_config rope_interleaved transformers.js_config tokenizer_class
    return_dict output_hidden_states output_attentions chunk_size_feed_forward is_encoder_decoder
    id2label label2id problem_type name_or_path cache_implementation""".split()
)


class Keys:
    """Reads values of a config, remembers which, and collects what is wrong with them."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._config = {**defaults, **config}  # a key that is null has no default
        self._seen: set[str] = set()
        self.problems: list[str] = []

    def take(self, key: str, default: Any = None) -> Any:
        """The value as it stands, or the default where it is absent or null."""
        self._seen.add(key)
        value = self._config.get(key)
        return default if value is None else value

    def __contains__(self, key: str) -> bool:
        return self._config.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the key is there and says null."""
        return key in self._config and self._config[key] is None

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; without a default the key is needed."""
        value = self.take(key, default)
        if value is None:
            self.problems.append(f"`{key}` is missing")
        elif not is_count(value):
            self.problems.append(f"`{key}` must be a positive integer, not {value!r}")
        else:
            return value
        return 2  # anything that lets the reading go on

    def number(self, key: str, default: float | None = None, *, within: Range = SCALE) -> float:
        """A number within a range, or the default where the key is absent or null."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        if value in within:
            return float(value)
        self.problems.append(f"`{key}` must be {within}, not {value!r}")
        return 1.0

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.problems.append(f"`{key}` must be true or false, not {value!r}")
        return bool(value)

    def choice(self, key: str, choices: Mapping[str, Any]) -> Any:
        """What a name stands for; the first of the choices where the key is absent."""
        name = self.take(key, next(iter(choices)))
        if not isinstance(name, str) or name not in choices:
            known = ", ".join(choices)
            self.problems.append(f"`{key}` = {name!r} is not ported (known: {known})")
            return next(iter(choices.values()))
        return choices[name]

    def unread(self) -> list[str]:
        """A problem for every key that nobody read and that might matter; "_" begins notes."""
        return [
            f"`{key}` = {value!r} is not understood"
            for key, value in self._config.items()
            if key not in self._seen | _HARMLESS and not key.startswith("_")
            if value not in (None, False)
        ]


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
