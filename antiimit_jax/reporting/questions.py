"""The study's questions: what answers each in a run, what came out, what that does not cover."""

from antiimit_jax.reporting.run_files import Run
from antiimit_jax.results import Question


def open_questions(run: Run) -> list[Question]:
    """The study's questions that no suite of this run answers."""
    found = []
    if not any(row["suite"] == "introspection" for row in run.rows.all):
        introspection = Question(
            asked="Does the model know its own distribution (introspection)?",
            by="the suite introspection",
            found=[],
            beyond="whether a model that controls its distribution can also tell it",
        )
        found.append(introspection)
    if seeds := run.rows.n_seeds:
        again = Question(
            asked="Would another training come out alike?",
            by="several train.seeds, each with stages of its own",
            found=[f"{seeds} seeds: compare their lines below"] if seeds > 1 else [],
            beyond="the intervals of this page are over items, not over trainings",
        )
        found.append(again)
    return found
