"""Figures as SVG text: small panels that a page can lay out side by side or one below another.

Only Figure objects with the Agg canvas are used, no pyplot and no lasting global settings. Text
stays text in the SVG, so that it can be searched and takes the reader's fonts.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.results import stage_named

_LOOKS = {  # kind of stage -> colour, marker, the marker in a legend
    "base": ("#6e6e6e", "s", "■"),
    "tuned": ("#0072b2", "o", "●"),
    "placebo": ("#d9730d", "^", "▲"),
}
_OTHER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#b8a200")
INK = "#222222"
PANEL, WIDE = (3.35, 2.75), 4.9  # inches
MAX_DOTS = 400
RULER_SIGNS = ("|", "×", "+", "⋏")  # as drawn by _RULER_MARKS, for a legend
_RULER_MARKS = ("|", "x", "+", "2")
STYLE = Path(__file__).parent / "templates" / "figures.mplstyle"
_styled = style.context(STYLE)  # each call of a decorated function has its own context
Point = tuple[float, float | None, float | None] | None  # value and ends of its interval
Series = Mapping[str, Sequence[Point]]


def colour(stage: str) -> str:
    """The stage's colour: base grey, tuned blue, placebo orange, others from a safe list."""
    return look(stage)[0]


def legend(stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """(sign, colour, words) of each stage, as drawn."""
    return [(look(s)[2], colour(s), s) for s in stages]


def look(stage: str) -> tuple[str, str, str]:
    """Colour, marker, and the marker in a legend."""
    other = _OTHER_COLOURS[sum(map(ord, stage)) % len(_OTHER_COLOURS)]
    return _LOOKS.get(stage_named(stage).kind, (other, "D", "◆"))


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as inline SVG that scales with its place; ids are made unique by `name`."""
    out = io.StringIO()
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with style.context([STYLE, {"svg.hashsalt": name}]):
        figure.savefig(out, format="svg", transparent=True, metadata=unsaid)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    box, rest = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', text, re.DOTALL).groups()
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", rest)
    title = html.escape(label)
    return (
        f'<svg {box} role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    )


@_styled
def rgb(figure: Figure) -> np.ndarray:
    """The figure as pixels, uint8 [height, width, 3]."""
    figure.set_dpi(130)
    figure.set_facecolor("white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@_styled
def calibration_figure(panels: Mapping[str, Any]) -> Figure:
    """Share given against share asked, with the diagonal, and below it where the mass lies.

    Bands hold most items of a level; means of few word sets are hollow.

    panels: stage -> asked, share, mass, counted of each item; x, mean, low, high, band, sets of
      each level.
    """
    figure = Figure(figsize=(PANEL[0] * len(panels), 3.75), layout="constrained")
    columns = figure.subplots(2, len(panels), height_ratios=(4.2, 1), squeeze=False).T
    for (stage, data), (axes, below) in zip(panels.items(), columns):
        _calibration(axes, data, stage)
        weights = np.full(data.mass.size, 1 / data.mass.size)
        mass, bins = np.clip(data.mass, 0, 1), np.linspace(0, 1, 21)
        below.hist(mass, bins=bins, weights=weights, color=colour(stage), alpha=0.8)
        below.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability on the two words (mass)")
        below.set_ylabel("items")
        below.set_yticks([0, 1], ["0", "all"])
    return figure


def _calibration(axes: Axes, data: Any, stage: str) -> None:
    ink = colour(stage)
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=(0, (4, 3)), zorder=1)
    dots = _thinned(np.flatnonzero(data.counted))
    axes.scatter(data.asked[dots], data.share[dots], s=5, color=ink, alpha=0.25, lw=0, zorder=2)
    if data.counted.mean() < 0.5:
        dots = _thinned(np.flatnonzero(~data.counted))
        ring = dict(s=9, facecolors="none", edgecolors=ink, alpha=0.6, lw=0.5, zorder=2)
        axes.scatter(data.asked[dots], data.share[dots], **ring)
    axes.fill_between(data.x, *data.band, color=ink, alpha=0.15, lw=0, zorder=1)
    for x, sets, *point in zip(data.x, data.sets, data.mean, data.low, data.high):
        mark(axes, x, point, look(stage), hollow=sets < FEW_CLUSTERS)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), title=stage, ylabel="share given")
    axes.set(xticks=np.linspace(0, 1, 6), xlabel="share asked of the first-named word")


@_styled
def slope_figure(series: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Log-odds given against asked, a mark a word set and distance, with each stage's line.

    series: stage -> x and d [units] of the graded slope, the last on top.
    """
    figure = Figure(figsize=(PANEL[0], 3.75), layout="constrained")
    axes = figure.subplots()
    ends = np.array([0.0, max(x.max() for x, _ in series.values())])
    axes.plot(ends, ends, color="#999999", lw=0.8, ls=(0, (4, 3)), zorder=1)
    for stage, (x, d) in series.items():
        ink, sign, _ = look(stage)
        axes.plot(x, d, marker=sign, ms=2.8, color=ink, alpha=0.45, lw=0, mew=0, zorder=2)
        if np.ptp(x) > 0:
            slope, step = np.polyfit(x, d, 1)
            axes.plot(ends, step + slope * ends, color=ink, lw=1.6, zorder=3)
    axes.set(title=title, xlabel="log-odds asked (exchanged percentages apart)")
    axes.set_ylabel("log-odds given")
    return figure


@_styled
def slices_figure(
    title: str, labels: Sequence[str], stages: Series, dashes: Mapping[str, Sequence], top: float
) -> Figure:
    """TVD over slices: stages as points with intervals, baselines as short dashes.

    What lies above `top` becomes a caret at the edge.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    for dash, values in zip(("-", (0, (1.2, 0.9))), dashes.values()):
        for x, value in enumerate(values):
            if value is not None:
                ends = [x - 0.38, x + 0.38]
                axes.plot(ends, [value, value], color=INK, lw=1.1, ls=dash, zorder=1)
    spread, middle = 0.22 if len(labels) <= 8 else 0.16, (len(stages) - 1) / 2
    for i, (stage, points) in enumerate(stages.items()):
        ink = colour(stage)
        for place, point in enumerate(points):
            x = place + (i - middle) * spread
            if point and point[0] > top:
                axes.plot(x, 0.97 * top, marker="^", ms=4.5, mfc="white", mec=ink, zorder=4)
            elif point:
                mark(axes, x, point, look(stage))
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(0, top), title=title, ylabel="TVD")
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    return figure


@_styled
def stacked_figure(
    title: str, stages: Sequence[str], shares: Mapping[str, tuple[str, Sequence[float]]]
) -> Figure:
    """Stacked bars, one a stage from the top down; shares: category -> (colour, share a stage)."""
    figure, axes, y = _lines_of_text(stages, 0.75)
    left = np.zeros(len(stages))
    for ink, values in shares.values():
        axes.barh(y, values, left=left, height=0.62, color=ink, edgecolor="white", linewidth=0.5)
        left += values
    axes.set(xlim=(0, 1), title=title, xlabel="share of all probability")
    axes.spines["left"].set_visible(False)
    return figure


@_styled
def drift_figure(
    title: str, categories: Sequence[str], series: Series, log: bool, xlabel: str
) -> Figure:
    """Dot plot by category, a point a category and stage; rulers (names with a colon) in ink."""
    figure, axes, y = _lines_of_text(categories, 0.8)
    rulers = iter(_RULER_MARKS * len(series))
    for i, (name, points) in enumerate(series.items()):
        ruler = ":" in name
        looks = (INK, next(rulers)) if ruler else look(name)
        heights = y + 0.62 * ((len(series) - 1) / 2 - i) / max(len(series), 3)
        for height, point in zip(heights, points):
            if point and (point[0] > 0 or not log):
                value, low, high = point
                shown = (value, max(low, value / 10) if log else low, high)
                mark(axes, height, shown, looks, lw=0.8 if ruler else 1.2, upright=False)
    if log:
        axes.set_xscale("log")
        _plain_log(axes.xaxis)
    axes.set(title=title, xlabel=xlabel, ylim=(-0.5, len(categories) - 0.5))
    axes.grid(axis="x", color="#e4e4e4", lw=0.6)
    axes.set_axisbelow(True)
    return figure


@_styled
def training_figure(
    title: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]], log: bool
) -> Figure:
    """One quantity over training steps; series: adapter -> (steps, values), the last on top."""
    figure = Figure(figsize=(PANEL[0], 2.15), layout="constrained")
    axes = figure.subplots()
    for name, (steps, values) in series.items():
        values = np.where(values > 0, values, np.nan) if log else values
        axes.plot(steps, values, color=colour(name), lw=0.5, alpha=0.35)
        axes.plot(steps, _smooth(values), color=colour(name), lw=1.3)
    if log:
        axes.set_yscale("log")
        _plain_log(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set(title=title, xlabel="step")
    return figure


def _lines_of_text(names: Sequence[str], margin: float) -> tuple[Figure, Axes, np.ndarray]:
    """A wide figure with a line a name from the top down, and the lines' heights."""
    figure = Figure(figsize=(WIDE, margin + 0.42 * len(names)), layout="constrained")
    axes, y = figure.subplots(), np.arange(len(names))[::-1]
    axes.set_yticks(y, list(names))
    axes.tick_params(axis="y", length=0)
    return figure, axes, y


def mark(
    axes: Axes,
    x: float,
    point: Sequence,
    look: Sequence[str],
    lw: float = 1.2,
    upright: bool = True,
    hollow: bool = False,
) -> None:
    """A value with its interval, where it has one, at place x (a height, unless upright)."""
    (value, low, high), (ink, sign, *_) = point, look
    turn = (lambda *xy: xy) if upright else (lambda *xy: xy[::-1])
    if not (low is None or high is None or np.isnan(low)):
        axes.plot(*turn([x, x], [low, high]), color=ink, lw=lw, zorder=2)
    face = "white" if hollow else ink
    axes.plot(*turn([x], [value]), marker=sign, ms=4.5, color=ink, mfc=face, lw=0, zorder=3)


def _plain_log(axis: Axis) -> None:
    """Labels 0.01, 0.1, 1 on a log axis; also 2 and 5 between them when the axis is short."""
    low, high = sorted(axis.get_view_interval())
    short = high < 40 * low
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _thinned(index: np.ndarray) -> np.ndarray:
    if index.size <= MAX_DOTS:
        return index
    return index[np.linspace(0, index.size - 1, MAX_DOTS).astype(int)]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over 1/40 of the curve, NaN left out; short curves stay as they are."""
    width = 2 * (values.size // 80) + 1
    good = np.isfinite(values).astype(float)
    window = np.ones(width)
    total = np.convolve(np.nan_to_num(values, posinf=0, neginf=0) * good, window, "same")
    count = np.convolve(good, window, "same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
