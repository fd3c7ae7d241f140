"""compare.json, compare.html and the console's lines of a comparison of several models' runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import style, ticker
from matplotlib.figure import Figure

from antiimit_jax.files import json_text
from antiimit_jax.metrics.between_models import METRICS
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.reporting import plots
from antiimit_jax.reporting.between_models import Comparison
from antiimit_jax.reporting.compared_models import BESIDE, LABELS, Compared, Model
from antiimit_jax.reporting.judging import Verdict
from antiimit_jax.reporting.needed_runs import FORMATS
from antiimit_jax.reporting.report import template
from antiimit_jax.reporting.rows import interval, number
from antiimit_jax.reporting.run_files import write_text
from antiimit_jax.reporting.summary import ascii_signs, text_table
from antiimit_jax.results import Cell, Line, Picture, Section, Table

JSON, PAGE = "compare.json", "compare.html"
NOT_ASKED = "not asked"
_SHOWN = 4  # of what is missing, on the console
_EXPLAINED = (
    "γ says how far log-odds follow those of the percentages asked: 1 follows them, 0 ignores "
    "them, and more than 1 overdoes it. Mass is the probability of the asked words together, TVD "
    "the probability in the wrong place, TVD of shares the same of the words' shares among "
    "themselves, where they have mass.",
)
_SAD = (
    "SAD's published table (5 of 5 pairs favour the base) is not counted as evidence: the "
    "probability before was formed from it. Its authors put the gap down to refusals and format, "
    "and its score is a mean over two tasks."
)


def write_comparison(workdir: Path, found: Comparison, about: str, notes: Sequence[str]) -> Path:
    """Writes compare.json and compare.html; returns the page's path.

    Args:
      about: which items were asked.
      notes: in what the runs differ besides their models.
    """
    write_text(workdir / JSON, json_text(_as_dict(found, about, notes), indent=1) + "\n")
    text = template("compare.html.j2").render(
        title=f"{len({m.name for m in found.models})} models compared",
        about=about,
        warnings=notes,
        verdicts=found.verdicts,
        sections={"models": _models(found), "E1": _sizes(found), "E2": _pairs(found)},
        svg=plots.svg,
    )
    return write_text(workdir / PAGE, text)


def console_lines(found: Comparison) -> str:
    """The models' figures and the verdicts as text."""
    lines = text_table(_model_table(found))
    for verdict in found.verdicts:
        lines += ["", f"{verdict.id}: {verdict.claim}: {verdict.verdict}"]
        lines += [f"  {text}" for text in verdict.found]
        lines += [f"  missing: {text}" for text in verdict.missing[:_SHOWN]]
        if (more := len(verdict.missing) - _SHOWN) > 0:
            lines.append(f"  missing: {more} more, see the page")
    return ascii_signs([*lines, *(f"  {reading}" for reading in found.readings)])


def _as_dict(found: Comparison, about: str, notes: Sequence[str]) -> dict[str, Any]:
    facts = [f.name for f in dataclasses.fields(Model) if f.name not in ("answers", "beside")]
    models = [
        {name: getattr(m, name) for name in facts}
        | {metric: _values(one) for metric, one in found.own[m.name, m.format].items()}
        | {"residual": {name: _values(one) for name, one in m.beside.items()}}
        for m in found.models
    ]
    rows = [
        {key: value for key, value in vars(one).items() if key != "figure"} | _values(one.figure)
        for one in found.found
    ]
    verdicts = [dataclasses.asdict(verdict) for verdict in found.verdicts]
    said = {"asked": about, "notes": list(notes), "readings": list(found.readings)}
    return {"schema": 1, **said, "models": models, "rows": rows, "verdicts": verdicts}


def _values(figure: Estimate) -> dict[str, Any]:
    """A figure under the names that rows of metrics.json have."""
    ends = {"value": figure.value, "ci_low": figure.low, "ci_high": figure.high}
    return ends | ({"note": figure.note} if figure.note else {})


def _cell(figure: Estimate) -> Cell:
    return Cell(text=number(figure.value), small=interval(_values(figure)))


def _cells(here: dict[str, Compared]) -> list[Cell]:
    return [_cell(here[metric].figure) for metric in METRICS]


def _model_table(found: Comparison) -> Table:
    body = [
        Line(
            label=m.name,
            cells=[
                m.family,
                _parameters(m.parameters),
                m.kind,
                m.format,
                *map(_cell, found.own[m.name, m.format].values()),
            ],
        )
        for m in found.models
    ]
    head = ["model", "family", "parameters", "kind", "format", *LABELS.values()]
    return Table(head=head, body=body)


def _parameters(count: float) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"


def _models(found: Comparison) -> Section:
    runs = [Line(label=m.name, cells=[m.format, m.run]) for m in found.models]
    return Section(
        "The models, each as it is",
        _EXPLAINED,
        tables=[
            _model_table(found),
            Table(head=["model", "format", "run"], body=runs, fold="folders of the runs"),
        ],
        link="Models",
    )


def _sizes(found: Comparison) -> Section:
    """E1: a line a family."""
    (verdict,) = [v for v in found.verdicts if v.id == "E1"]
    slopes = found.at("E1")
    over = slopes.pop("", {})
    body = [
        Line(label=family, cells=_cells(of), small=", ".join(of["gamma"].models))
        for family, of in slopes.items()
    ]
    if len(slopes) > 1:
        body.append(Line(label="mean over families", cells=_cells(over), kind="stage"))
    table = Table(
        head=["slope per doubling of parameters", *LABELS.values()],
        body=body,
        notes=[
            "Base and post-trained models, and formats, have a level of their own each and share "
            "the slope. Intervals of a family are over word sets, which all its models answered; "
            "those of the mean also over families."
        ],
    )
    caption = (
        "Full marks are base models, hollow ones post-trained; squares are asked in base format, "
        "circles in chat format. Lines join one family's models of a kind."
    )
    pictures = [
        Picture(
            drawing=_size_figure(found, metric),
            name=f"sizes-{metric}",
            label=f"{LABELS[metric]} by parameters",
            caption=caption if metric == METRICS[0] else "",
        )
        for metric in METRICS[:3]
    ]
    families = dict.fromkeys(m.family for m in found.models)
    legend = [("■", plots.colour(family), family) for family in families]
    tables = [table] if body else []
    return _section(verdict, tables=tables, figures=pictures, legend=legend)


def _pairs(found: Comparison) -> Section:
    """E2: a table a format, in it each pair and what its two models differ by."""
    (verdict,) = [v for v in found.verdicts if v.id == "E2"]
    pairs = list(dict.fromkeys(m.pair for m in found.models if m.pair))
    tables = [_pairs_table(found, pairs, asked) for asked in FORMATS] if pairs else []
    return _section(verdict, [*found.readings, _SAD.removesuffix(".")], tables=tables)


def _pairs_table(found: Comparison, pairs: Sequence[str], asked: str) -> Table:
    """In one format: both models of each pair, and what they differ by."""
    differences, body = found.at("E2", asked), []
    beside = [name for name in BESIDE if any(name in m.beside for m in found.models)]
    none = [""] * len(beside)  # not paired, since a run gives these figures alone
    for pair in pairs:
        body += [_asked_line(found, (pair, post), asked, beside) for post in (False, True)]
        if pair in differences:
            cells = [*_cells(differences[pair]), *none]
            body.append(Line(label="base less post-trained", cells=cells, kind="stage"))
    if len(differences) > 2:
        cells = [*_cells(differences[""]), *none]
        body.append(Line(label="mean of base less post-trained", cells=cells, kind="stage"))
    head = ["", *LABELS.values(), *(BESIDE[name] for name in beside)]
    return Table(head=head, body=body, title=f"Asked in {asked} format")


def _asked_line(
    found: Comparison, one: tuple[str, bool], asked: str, beside: Sequence[str]
) -> Line:
    """One model, by its pair and whether it is the post-trained, in one format."""
    there = [m for m in found.models if (m.pair, m.post_trained) == one]
    here = next((m for m in there if m.format == asked), None)
    kind = "post-trained" if one[1] else "base"
    name = (here or there[0]).name if there else f"{kind} model of {one[0]}"
    cells: list[Cell | str] = [NOT_ASKED] * len(METRICS) + ["–"] * len(beside)
    if here:
        cells = [_cell(figure) for figure in found.own[here.name, asked].values()]
        cells += [_cell(here.beside[n]) if n in here.beside else "–" for n in beside]
    return Line(label=name, cells=cells, small=kind if there else "")


def _section(verdict: Verdict, readings: Sequence[str] = (), **shown: Any) -> Section:
    missing = "\n".join(verdict.missing)
    return Section(
        f"{verdict.id}: {verdict.claim}",
        [f"Verdict: {verdict.verdict}.", f"Rule: {verdict.rule}."],
        readings=[*verdict.found, *readings],
        parts=[Section("What is missing", quote=missing)] if missing else [],
        link=f"{verdict.id}: {'sizes' if verdict.id == 'E1' else 'pairs'}",
        **shown,
    )


def _size_figure(found: Comparison, metric: str) -> Figure:
    """One figure against parameters, a line a family, kind and format."""
    lines: dict[tuple, list[Model]] = {}
    for m in sorted(found.models, key=lambda m: m.parameters):
        lines.setdefault((m.family, m.post_trained, m.format), []).append(m)
    with style.context(plots.STYLE):
        figure = Figure(figsize=plots.PANEL, layout="constrained")
        axes = figure.subplots()
        for (family, post, asked), models in lines.items():
            look = plots.colour(family), {"base": "s", "chat": "o"}[asked]
            own = [found.own[m.name, m.format][metric] for m in models]
            known = [(m.parameters, one) for m, one in zip(models, own) if one.value is not None]
            axes.plot([x for x, _ in known], [one.value for _, one in known], color=look[0], lw=0.8)
            for x, one in known:
                plots.mark(axes, x, (one.value, one.low, one.high), look, hollow=post)
        axes.set_xscale("log")
        sizes = sorted({m.parameters for m in found.models})
        axes.set_xticks(sizes, map(_parameters, sizes), rotation=30, ha="right")
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set(title=LABELS[metric], xlabel="parameters")
        return figure
