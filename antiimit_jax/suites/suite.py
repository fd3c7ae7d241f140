"""All that the file of a suite imports of its surroundings.

A suite is a module `antiimit_jax/suites/NAME.py` (or a folder of that name) and its entry in
`SUITES`. It has these names:

    class Config                    a frozen dataclass; becomes RunConfig.NAME, --config.NAME.field
    TABLES: dict[str, pa.Schema]    what it writes, each with a column "stage"
    FIGURES: tuple[Figure, ...]     the metrics of its rows
    measure(asker, cfg) -> Tables   asks one stage's model; writes tables, computes no figure
    score(tables, cfg, boot)        every row, from the joined tables of all stages; no model
    section(tables, rows) -> Section

and may have NEEDS (what it asks besides `words`), SPLITS (split -> meaning, in order of interest),
HEADLINE (those of FIGURES that a model card shows),
`samples(tables)` (for console and TensorBoard), `headline(rows)` (for the console),
`images(tables, rows)` (for TensorBoard) and `programs(cfg, seed, scoring)` (for the memory plan).
"""

from antiimit_jax.evaluation.asker import Asker
from antiimit_jax.fields import at_least, one_of, shared
from antiimit_jax.metrics.intervals import Estimate, Statistic, estimate, mean
from antiimit_jax.metrics.resampling import Bootstrap, column_sums
from antiimit_jax.metrics.rows import row_of
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import (
    Cell,
    Columns,
    Figure,
    Line,
    Picture,
    Row,
    Section,
    Stage,
    Table,
    Tables,
    make_row,
    taken,
)
from antiimit_jax.scoring.asks import Answer, Ask, Program, Scoring
from antiimit_jax.text.formats import Message
