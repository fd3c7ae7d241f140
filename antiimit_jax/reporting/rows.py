"""Looking up rows of metrics.json, and printing numbers and model text for people."""

import re
from collections.abc import Iterable, Sequence
from unicodedata import category

from antiimit_jax.errors import UserError
from antiimit_jax.results import Row, Stage, stage_named, stage_order

_ANSI = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"
)
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
_SIGNS = str.maketrans("\r\n\t", "␍⏎⇥")


class Rows:
    """Rows by (stage, suite, split, slice, metric); a slice's conditions in any order."""

    def __init__(self, rows: Iterable[Row], stages: Sequence[Stage] = ()) -> None:
        """`stages`: those of the run; else they are known by their names."""
        self.all = list(rows)
        names = dict.fromkeys(row["stage"] for row in self.all if ":" not in row["stage"])
        self._stages = {s.name: s for s in stages} or {name: stage_named(name) for name in names}
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
        """Stages of a suite that are neither baselines nor rulers, in the run's order."""
        found = dict.fromkeys(row["stage"] for row in self.all if row["suite"] == suite)
        return ordered((name for name in found if ":" not in name), stage_order(self.of_run))

    @property
    def of_run(self) -> list[Stage]:
        """The stages of the run."""
        return list(self._stages.values())

    @property
    def n_seeds(self) -> int:
        """From how many seeds the run's own adapters were trained."""
        return len({stage.adapter_seed for stage in self.of_run if stage.trained})

    def kind(self, stage: str) -> str:
        """What kind of stage bears a name."""
        return self._stages.get(stage, stage_named(stage)).kind

    def first(self, suite: str, *kinds: str) -> str | None:
        """The suite's first stage of the kinds, sought in their order; None where there is none."""
        stages = self.stages(suite)
        return next((s for kind in kinds for s in stages if self.kind(s) == kind), None)

    def subject(self, suite: str) -> str | None:
        """The stage that sentences are about: tuned, else a foreign adapter, else the base."""
        return self.first(suite, "tuned", "other", "base", "placebo")

    def splits(self, suite: str, first: Iterable[str] = ()) -> list[str]:
        """Splits of a suite, those of `first` in its order before the others."""
        return ordered({r["split"]: 0 for r in self.all if r["suite"] == suite}, first)

    def slice_values(self, suite: str, split: str, key: str, within: str = "") -> list[str]:
        """Values v of slices `key=v` (`within,key=v` when within is given), in numeric order."""
        rest, here = conditions(within), (suite, split)
        slices = {row["slice"] for row in self.all if (row["suite"], row["split"]) == here}
        found = [slice_ for slice_ in map(conditions, slices) if key in slice_]
        values = {slice_[key] for slice_ in found if slice_ == {**rest, key: slice_[key]}}
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


def number(value: float | None, digits: int = 3, least: float = 1e-9) -> str:
    """A number for people: fixed decimals, thousands grouped, tiny ones in powers of ten.

    Args:
      least: what is smaller is 0; by default what rounding leaves of a difference.
    """
    if value is None or value != value:
        return "–"
    if abs(value) < least:
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


def interval(row: Row | None, digits: int = 3) -> str:
    """'[0.150, 0.190]', or '' where there is none; the blank inside does not break."""
    if row is None or row["ci_low"] is None or row["ci_high"] is None:
        return ""
    low, high = (number(row[end], digits, _least(row, digits)) for end in ("ci_low", "ci_high"))
    return f"[{low},\u00a0{high}]"


def value_text(row: Row | None, digits: int = 3) -> str:
    """'0.172', '–' where there is no value."""
    return number(value_of(row), digits, _least(row, digits))


def figure(row: Row | None, digits: int = 3) -> str:
    """'0.172 [0.150, 0.190]', the interval only where there is one."""
    return f"{value_text(row, digits)} {interval(row, digits)}".rstrip()


def _least(row: Row | None, digits: int) -> float:
    """What is 0 in print: where an interval has 0 inside, all that the decimals do not show."""
    ends = (row or {}).get("ci_low"), (row or {}).get("ci_high")
    return 0.5 * 10**-digits if None not in ends and ends[0] < 0 < ends[1] else 1e-9


def value_of(row: Row | None) -> float | None:
    """The row's value, None where there is no row or no value."""
    return None if row is None else row["value"]


def plain_text(text: str) -> str:
    """Model text that is safe on a terminal: no escape sequences, controls or text-direction marks.

    Newline, tab and carriage return become visible signs.
    """
    return page_text(text.translate(_SIGNS))


def page_text(text: str) -> str:
    """Model text for a page: newlines and tabs kept, escapes dropped, other controls replaced."""
    hidden = lambda char: char in _BIDI or (category(char) in ("Cc", "Cs") and char not in "\n\t")
    return "".join("�" if hidden(char) else char for char in _ANSI.sub("", text))


def visible(text: str) -> str:
    """A short model text with its blanks made visible, cut at 24 characters."""
    shown = plain_text(text).replace(" ", "·") or "(empty)"
    return shown if len(shown) <= 24 else shown[:23] + "…"


def _sorted(where: str) -> str:
    return ",".join(sorted(part for part in where.split(",") if part and part != "all")) or "all"
