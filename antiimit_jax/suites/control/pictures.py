"""Control's pictures: share given against share asked, and the graded slope."""

from antiimit_jax.metrics.control import MIN_MASS
from antiimit_jax.reporting.rows import Rows, figure, value_of
from antiimit_jax.results import Picture, Tables
from antiimit_jax.suites.control.curves import calibration, slope_points
from antiimit_jax.suites.control.labels import SUITE


def pictures(tables: Tables, rows: Rows, split: str = "heldout_words") -> list[Picture]:
    """A calibration panel a stage: share given against share asked, two words, the first named."""
    from antiimit_jax.reporting import plots  # matplotlib, when it is drawn

    found = []
    for stage in rows.stages(SUITE):
        data = calibration(tables["items"], stage, split)
        if data is None:
            continue
        counted, n = int(data.counted.sum()), data.counted.size
        note = f"{counted} of {n} items have mass ≥ {MIN_MASS} and count"
        slope = rows.get(stage, SUITE, split, "k=2", "slope")
        if value_of(slope) is not None:
            note += f"; slope {figure(slope)} (1 is ideal)"
        if data.grouped:
            note += "; percentages grouped in tenths"
        if counted < n / 2:
            note += "; open marks are the items below that mass, which do not count"
        drawing = plots.calibration_figure({stage: data})
        name, label = f"calibration-{stage}", f"calibration of stage {stage} on {split}"
        found.append(Picture(drawing=drawing, name=name, label=label, caption=note + "."))
    return found


def images(tables: Tables, rows: Rows) -> dict[tuple[str, ...], Picture]:
    """TensorBoard tag -> calibration curve."""
    return {
        (picture.name.removeprefix("calibration-"), SUITE, split, "calibration"): picture
        for split in rows.splits(SUITE)
        if "items" in tables
        for picture in pictures(tables, rows, split)
    }


def front(tables: Tables, rows: Rows, split: str) -> list[Picture]:
    """What a reader wants first: shares before and after training, and the graded slope."""
    drawn = (before_after(tables, rows, split), graded_slope(tables, rows, split))
    return [picture for picture in drawn if picture]


def before_after(tables: Tables, rows: Rows, split: str = "heldout_words") -> Picture | None:
    """The base's calibration curve beside the headline's stage; None without two-word items."""
    from antiimit_jax.reporting import plots

    curves = {stage: calibration(tables["items"], stage, split) for stage in _two(rows, tables)}
    found = {stage: data for stage, data in curves.items() if data}
    if not found:
        return None
    label = f"share given against share asked: {' and '.join(found)}"
    return Picture(
        drawing=plots.calibration_figure(found),
        name="share",
        label=label,
        caption="Two words: share given to the first-named one against the share asked. On the "
        "dashed line the model is in full control; a flat curve ignores the request.",
    )


def graded_slope(tables: Tables, rows: Rows, split: str = "heldout_words") -> Picture | None:
    """Log-odds given against asked by word set; None where no set has exchanged percentages."""
    from antiimit_jax.reporting import plots

    points = {stage: slope_points(tables["items"], stage, split) for stage in _two(rows, tables)}
    found = {stage: data for stage, data in points.items() if data and data[0].size}
    if not found:
        return None
    known = {stage: rows.get(stage, SUITE, split, "k=2", "gamma") for stage in found}
    values = [f"{stage} γ {figure(known[stage], 2)}" for stage in found]
    drawing = plots.slope_figure(found, "log-odds given against asked")
    return Picture(
        drawing=drawing,
        name="slope",
        label="graded slope by word set",
        caption="How far a word set's log-odds move when its percentages are exchanged, a mark a "
        f"set and distance. {'; '.join(values)}: 1 (dashed) follows the percentages; a level line "
        "knows only which word is to be larger.",
    )


def _two(rows: Rows, tables: Tables) -> list[str]:
    """The base and the headline's stage, those that were measured."""
    stages = dict.fromkeys([rows.first(SUITE, "base"), rows.subject(SUITE)])
    return [stage for stage in stages if stage and "items" in tables]
