"""The study's questions: what answers each in a run, what came out, what that does not cover."""

from antiimit_jax.reporting.run_files import Run
from antiimit_jax.results import Question


def open_questions(run: Run) -> list[Question]:
    """The study's questions that no suite answers."""
    introspection = Question(
        asked="Does the model know its own distribution (introspection)?",
        by="no suite measures it",
        found=[],
        beyond="whether a model that controls its distribution can also tell it",
    )
    if not (seeds := run.rows.n_seeds):
        return [introspection]
    again = Question(
        asked="Would another training come out alike?",
        by="several train.seeds, each with stages of its own",
        found=[f"{seeds} seeds: compare their lines below"] if seeds > 1 else [],
        beyond="the intervals of this page are over items, not over trainings",
    )
    return [introspection, again]
