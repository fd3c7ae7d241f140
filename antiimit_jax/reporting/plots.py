"""Figures as SVG text: small panels that a page can lay out side by side or one below another.

Only Figure objects with the Agg canvas are used, no pyplot and no lasting global settings. Text
stays text in the SVG, so that it can be searched and takes the reader's fonts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from antiimit_jax.results import stage_named

COLOURS = {"base": "#6e6e6e", "tuned": "#0072b2", "placebo": "#d9730d"}
MARKERS = {"base": "s", "tuned": "o", "placebo": "^"}
SIGNS = {"base": "■", "tuned": "●", "placebo": "▲"}  # the markers, for a legend; others "◆"
OTHER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#b8a200")
INK, FAINT = "#222222", "#8a8a8a"
PANEL = (3.35, 2.75)  # inches
WIDE = (4.9, 2.6)
MAX_DOTS = 400
RULER_SIGNS = ("|", "×", "+", "⋏")  # as drawn by _RULER_MARKS, for a legend
_RULER_MARKS = ("|", "x", "+", "2")
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


def colour(stage: str) -> str:
    """The stage's colour: base grey, tuned blue, placebo orange, others from a safe list."""
    return (
        COLOURS.get(stage_named(stage).kind)
        or OTHER_COLOURS[sum(map(ord, stage)) % len(OTHER_COLOURS)]
    )


def marker(stage: str) -> str:
    """The stage's mark in a drawing."""
    return MARKERS.get(stage_named(stage).kind, "D")


def legend(stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """(sign, colour, words) of each stage, as drawn."""
    return [(SIGNS.get(stage_named(s).kind, "◆"), colour(s), s) for s in stages]


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as inline SVG that scales with its place; ids are made unique by `name`."""
    out = io.StringIO()
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    head, _, rest = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', head).group()
    title = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg {box} role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    )


def rgb(figure: Figure, dpi: int = 130) -> np.ndarray:
    """The figure as pixels, uint8 [height, width, 3]."""
    figure.set_dpi(dpi)
    figure.set_facecolor("white")
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(_STYLE):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def calibration_figure(data: Any, stage: str, title: str) -> Figure:
    """Share given against share asked, with the diagonal, and below it where the mass lies."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PANEL[0], 3.75), layout="constrained")
        axes, below = figure.subplots(2, 1, height_ratios=(4.2, 1))
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=(0, (4, 3)), zorder=1)
        dots = _thinned(np.flatnonzero(data.counted))
        axes.scatter(
            data.asked[dots],
            data.share[dots],
            s=5,
            color=colour(stage),
            alpha=0.25,
            linewidths=0,
            zorder=2,
        )
        if data.counted.mean() < 0.5:
            dots = _thinned(np.flatnonzero(~data.counted))
            axes.scatter(
                data.asked[dots],
                data.share[dots],
                s=9,
                facecolors="none",
                edgecolors=colour(stage),
                alpha=0.6,
                linewidths=0.5,
                zorder=2,
            )
        if data.x.size:
            bars = np.array([data.mean - data.low, data.high - data.mean])
            axes.errorbar(
                data.x,
                data.mean,
                yerr=np.nan_to_num(bars),
                fmt=marker(stage),
                ms=4,
                color=colour(stage),
                lw=0,
                elinewidth=1.1,
                zorder=3,
            )
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), title=title, ylabel="share given")
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_xlabel("share asked of the first-named word")
        weights = np.full(data.mass.size, 1 / data.mass.size)
        below.hist(
            np.clip(data.mass, 0, 1),
            bins=np.linspace(0, 1, 21),
            weights=weights,
            color=colour(stage),
            alpha=0.8,
        )
        below.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="probability on the two words (mass)", ylabel="items"
        )
        below.set_yticks([0, 1], ["0", "all"])
    return figure


Series = Mapping[str, Sequence[tuple[float | None, float | None, float | None]]]


def slices_figure(
    title: str,
    labels: Sequence[str],
    stages: Series,
    dashes: Mapping[str, Sequence[float | None]],
    top: float,
    ylabel: str = "TVD",
) -> Figure:
    """A figure over slices: stages as points with intervals, baselines as short dashes.

    stages: name -> (value, low, high) a label; what lies above `top` becomes a caret at the edge.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.subplots()
        spread = 0.22 if len(labels) <= 8 else 0.16
        for style, values in zip(("-", (0, (1.2, 0.9))), dashes.values()):
            for x, value in enumerate(values):
                if value is not None:
                    axes.plot(
                        [x - 0.38, x + 0.38], [value, value], color=INK, lw=1.1, ls=style, zorder=1
                    )
        middle = (len(stages) - 1) / 2
        for i, (stage, points) in enumerate(stages.items()):
            for x, (value, low, high) in enumerate(points):
                if value is not None:
                    _point(axes, x + (i - middle) * spread, value, low, high, stage, top)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(0, top), title=title, ylabel=ylabel)
        axes.set_xticks(range(len(labels)), labels)
        axes.tick_params(axis="x", length=0)
    return figure


def stacked_figure(
    title: str, stages: Sequence[str], shares: Mapping[str, tuple[str, Sequence[float]]]
) -> Figure:
    """Stacked bars, one a stage from the top down; shares: category -> (colour, share a stage)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDE[0], 0.75 + 0.42 * len(stages)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(stages))
        y = np.arange(len(stages))[::-1]
        for ink, values in shares.values():
            width = np.asarray(values, dtype=float)
            axes.barh(y, width, left=left, height=0.62, color=ink, edgecolor="white", linewidth=0.5)
            left += width
        axes.set(xlim=(0, 1), title=title, xlabel="share of all probability")
        axes.set_yticks(y, list(stages))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


def drift_figure(
    title: str,
    categories: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float] | None]],
    log: bool,
    xlabel: str,
) -> Figure:
    """Dot plot by category: series name -> (value, low, high) a category; rulers in ink."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDE[0], 0.8 + 0.42 * len(categories)), layout="constrained")
        axes = figure.subplots()
        y = np.arange(len(categories))[::-1]
        names = list(series)
        for i, name in enumerate(names):
            ruler = ":" in name
            mark = marker(name)
            if ruler:
                mark = _RULER_MARKS[[n for n in names if ":" in n].index(name) % 4]
            ink = INK if ruler else colour(name)
            for where, point in zip(y, series[name]):
                if point is None or (log and point[0] <= 0):
                    continue
                shift = (len(names) - 1) / 2 - i
                height = where + 0.62 * shift / max(len(names), 3)
                value, low, high = point
                if not np.isnan(low):
                    low = max(low, value / 10) if log else low
                    axes.plot([low, high], [height, height], color=ink, lw=0.8 if ruler else 1.2)
                axes.plot(value, height, color=ink, ms=4.5, lw=0, marker=mark)
        if log:
            axes.set_xscale("log")
            _plain_log(axes.xaxis)
        axes.set(title=title, xlabel=xlabel, ylim=(-0.5, len(categories) - 0.5))
        axes.set_yticks(y, list(categories))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
    return figure


def training_figure(
    title: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]], log: bool
) -> Figure:
    """One quantity over training steps; series: adapter -> (steps, values)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PANEL[0], 2.15), layout="constrained")
        axes = figure.subplots()
        for name in ("placebo", *(n for n in series if n != "placebo")):
            if name in series:
                steps, values = series[name]
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


def _point(
    axes: Axes,
    x: float,
    value: float,
    low: float | None,
    high: float | None,
    stage: str,
    top: float,
) -> None:
    if value > top:
        axes.plot(x, 0.97 * top, marker="^", ms=4.5, mfc="white", mec=colour(stage), zorder=4)
        return
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=colour(stage), lw=1.2, zorder=2)
    axes.plot(x, value, marker=marker(stage), ms=4.5, color=colour(stage), zorder=3)


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
