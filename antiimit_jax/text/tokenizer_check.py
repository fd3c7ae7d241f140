"""Does a loaded tokenizer read text as its own `tokenizer.json` says?

Libraries rebuild tokenizers by class name: transformers 5 drops the spaces of some DeepSeek models
and the doubled first space of Llama-2. So every tokenizer is compared with the file it came from.
"""

from pathlib import Path

from tokenizers import Tokenizer as RawTokenizer
from transformers import PreTrainedTokenizerFast

from antiimit_jax.errors import UserError

PROBES = (
    "The capital of France is Paris.",
    " a leading space",
    "   three spaces,  two   and trailing  ",
    " ",
    "\n",
    "line\nline\n\n\n  indented\r\nend",
    "tab\tand\t\ttabs",
    "don't they're I'll O’Neill’s",
    "naïve café Zürich Łódź e\u0301",
    "東京 서울 漢字かな",
    "Москва עברית हिन्दी",
    "🙂 👩‍👩‍👧 🇫🇷",
    "1234567890 3.14 1,000 70% x²",
    "def f(x):\n    return {'a': [x**2, ~x]}  # ok?!",
    "<html><b>&amp;</b></html> \\n $x_1$",
    " river",
    "Word: river-bank\u00a0apple",
    "<|im_end|> <|eot_id|> </s> <end_of_turn> [/INST]",
    "<s>a</s><bos><unk> <0x0A>",
    "antidisestablishmentarianism XyZ_camelCase",
)


def check_against_file(hf: PreTrainedTokenizerFast, file: Path) -> None:
    """Ids and round trips of `PROBES` must be those of the raw file.

    Raises:
      UserError: the first probe that is read differently.
    """
    raw = RawTokenizer.from_file(str(file))
    raw.no_truncation()
    raw.no_padding()
    for probe in PROBES:
        ids = hf.encode(probe, add_special_tokens=False)
        expected = raw.encode(probe, add_special_tokens=False).ids
        if ids != expected or hf.decode(ids) != raw.decode(expected, skip_special_tokens=False):
            raise UserError(
                f"{file}: transformers reads {probe!r} as {_short(ids)}, the file itself as "
                f"{_short(expected)}; this tokenizer cannot be trusted, use another transformers "
                "release"
            )


def _short(ids: list[int]) -> str:
    return str(ids[:8])[:-1] + (", ...]" if len(ids) > 8 else "]")
