"""Looking up rows of metrics.json, naming them for people, and printing numbers and model text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from antiimit_jax.errors import UserError

Row = Mapping[str, Any]

STAGES = ("base", "tuned", "placebo")
SPLITS = ("heldout_words", "heldout_both", "heldout_percent", "train")
BASELINES = {
    "baseline:perfect": "perfect controller",
    "baseline:uniform": "uniform: ignores the request",
    "baseline:argmax": "argmax: all on the larger word",
    "baseline:two_level": "step function: larger of two words always 75%",
    "baseline:rank_only": "rank only: best fixed shares by rank",
    "baseline:flip": "flip: the words' shares swapped",
    "baseline:constant_60_40": "constant 60/40",
    "baseline:prior": "prior: base model, no percentages in prompt",
    "baseline:few_shot_copy": "few-shot copy: last example's shares",
}
RULERS = {
    "ruler:int8_channel": "base, int8 weights per channel (the ruler)",
    "ruler:int8_block": "base, int8 weights in blocks",
    "ruler:bf16": "base, bf16",
    "ruler:noise": "base, weights with noise",
}
CONTROL_COLUMNS = (
    "tvd_res",
    "mass",
    "corr",
    "corr_within",
    "skill",
    "skill_over_rank",
    "kl_fwd",
    "kl_fwd_median",
)
LABELS = {
    "tvd_res": "TVD",
    "mass": "mass",
    "corr": "corr",
    "corr_within": "corr within",
    "skill": "skill",
    "skill_over_rank": "skill over rank",
    "kl_fwd": "KL",
    "kl_fwd_median": "KL median",
    "residual": "residual",
    "kl_base_tuned": "KL(base‖stage)",
    "kl_tuned_base": "KL(stage‖base)",
    "top1_agree": "top-1 agreement",
    "top5_overlap": "top-5 overlap",
    "delta_entropy": "Δ entropy",
    "delta_ppl": "Δ perplexity",
    "leak_neutral": "leak neutral",
    "leak_slope": "leak slope",
    "leak_rate": "leak rate",
    "flattening": "flattening",
}
EXPLAINED = {
    "tvd_res": "how much probability sits in the wrong place, from 0 (exactly as asked) to 1; what "
    "falls outside the asked words counts as wrong. (tvd_res)",
    "mass": "probability of giving any of the asked words at all, properly ended. Near 0 means "
    "that the model does not answer in the format; 1 is best.",
    "corr": "correlation between the share asked and the share given, on items with mass 0.05 or "
    "more. Knowing only which word is to be larger already reaches about 0.87.",
    "corr_within": "the same correlation inside requests below and above 50%, averaged. "
    "Knowing only which word is larger scores 0; graded control scores towards 1.",
    "skill": "1 − TVD / TVD of the better of two lazy answers (equal shares, or everything on the "
    "larger word). 0 is lazy, 1 is perfect, below 0 is worse than lazy.",
    "skill_over_rank": "the same against the best fixed shares by rank. Above 0 only if the "
    "percentages are used beyond the order of the words.",
    "kl_fwd": "what training lowers: KL(asked‖given) in nats, 0 at best. A word given no "
    "probability costs up to 69 nats, so a few such items can dominate the mean.",
    "kl_fwd_median": "the same for the middle item, not moved by a few items without an answer.",
    "kl_base_tuned": "how far next-token predictions on unrelated text moved from the base model, "
    "in nats a token; 0 is unchanged.",
    "kl_tuned_base": "the same divergence read from the stage's side.",
    "top1_agree": "share of tokens of that text where the most probable next token stays the same.",
    "top5_overlap": "how much of the five most probable next tokens is shared with the base model.",
    "delta_entropy": "change of the predictions' entropy in nats a token; above 0 is more diffuse.",
    "delta_ppl": "change of perplexity on that text; above 0 is worse.",
    "leak_neutral": "TVD to the base model on word-choice prompts that state no percentages.",
    "leak_slope": "how far a share follows a percentage that is only mentioned, not asked for; "
    "0 is no leak.",
    "leak_rate": "share of such prompts that move by more than 0.05 towards the mentioned "
    "percentage, less the same with shuffled percentages.",
    "flattening": "change of entropy on questions with one right answer; 0 is no change.",
}
_ANSI = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"
)
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


class Rows:
    """Rows by (stage, suite, split, slice, metric); a slice's conditions in any order."""

    def __init__(self, rows: Iterable[Row]):
        self.all = list(rows)
        self._index: dict[tuple[str, ...], Row] = {}
        for row in self.all:
            key = (row["stage"], row["suite"], row["split"], _sorted(row["slice"]), row["metric"])
            if key in self._index:
                raise UserError(f"metrics.json: two rows for {key}; evaluate with --overwrite")
            self._index[key] = row

    def get(self, stage: str, suite: str, split: str, where: str, metric: str) -> Row | None:
        """The row, or None where there is none."""
        return self._index.get((stage, suite, split, _sorted(where), metric))

    def stages(self, suite: str) -> list[str]:
        """Stages of a suite that are neither baselines nor rulers: base, tuned, placebo, others."""
        found = dict.fromkeys(row["stage"] for row in self.all if row["suite"] == suite)
        return ordered((name for name in found if ":" not in name), STAGES)

    def splits(self, suite: str) -> list[str]:
        """Splits of a suite, the held-out ones first."""
        return ordered({r["split"]: 0 for r in self.all if r["suite"] == suite}, SPLITS)

    def slice_values(self, suite: str, split: str, key: str, within: str = "") -> list[str]:
        """Values v of slices `key=v` (`within,key=v` when within is given), in numeric order."""
        rest = conditions(within)
        values = set()
        for row in self.all:
            if row["suite"] == suite and row["split"] == split:
                found = conditions(row["slice"])
                if key in found and {k: v for k, v in found.items() if k != key} == rest:
                    values.add(found[key])
        return sorted(values, key=natural)


def conditions(where: str) -> dict[str, str]:
    """'k=2,tokens=1' as {'k': '2', 'tokens': '1'}; 'all' and '' as {}."""
    parts = [part.partition("=") for part in where.split(",") if part and part != "all"]
    return {key: value for key, _, value in parts}


def natural(text: str) -> tuple[float, str]:
    """Sort key: by the first number in the text, then by the text."""
    found = re.search(r"\d+(\.\d+)?", text)
    return (float(found.group()) if found else float("inf"), text)


def ordered(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """names without repeats: those of `first` in its order, then the rest as they come."""
    names = list(dict.fromkeys(names))
    return [name for name in first if name in names] + [n for n in names if n not in set(first)]


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: fixed decimals, thousands grouped, tiny ones in powers of ten."""
    if value is None or value != value:
        return "–"
    if abs(value) < 1e-9:  # rounding of a difference
        value = 0.0
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        text = f"{value:.1e}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def signed(value: float) -> str:
    """A number with its sign, for a change."""
    return number(value) if value < 0 else f"+{number(value)}"


def decimals(metric: str) -> int:
    """Decimals of a metric: four where differences of a thousandth matter, else three."""
    return 4 if metric in ("kl_base_tuned", "kl_tuned_base", "delta_entropy") else 3


def interval(row: Row | None, digits: int = 3) -> str:
    """'[0.150, 0.190]', or '' where there is none; the blank inside does not break."""
    if row is None or row["ci_low"] is None or row["ci_high"] is None:
        return ""
    return f"[{number(row['ci_low'], digits)},\u00a0{number(row['ci_high'], digits)}]"


def figure(row: Row | None, digits: int = 3) -> str:
    """'0.172 [0.150, 0.190]', the interval only where there is one, '–' where there is no value."""
    if row is None or row["value"] is None:
        return "–"
    return f"{number(row['value'], digits)} {interval(row, digits)}".rstrip()


def value_of(row: Row | None) -> float | None:
    """The row's value, None where there is no row or no value."""
    return None if row is None else row["value"]


def plain_text(text: str) -> str:
    """Model text that is safe on a terminal: no escape sequences, controls or text-direction marks.

    Newline, tab and carriage return become visible signs.
    """
    text = _ANSI.sub("", text)
    text = text.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥")
    return "".join("�" if _unprintable(char) else char for char in text)


def page_text(text: str) -> str:
    """Model text for a page: newlines and tabs kept, escapes dropped, other controls replaced."""
    text = _ANSI.sub("", text)
    return "".join(char if char in "\n\t" or not _unprintable(char) else "�" for char in text)


def _unprintable(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in _BIDI


def _sorted(where: str) -> str:
    return ",".join(sorted(part for part in where.split(",") if part and part != "all")) or "all"
