"""The names of drift's figures and stages, and what people are told of them."""

from antiimit_jax.suites import suite

SUITE, SPLIT, CONTINUED, TASK = "drift", "neutral", "continued", "task"
SPLITS = {
    SPLIT: "text that asks for no distribution",
    CONTINUED: "the base's own answers to questions that ask for none",
    TASK: "requests of output control",
}
LABELS = {
    "int8_channel": "base, int8 weights per channel (the ruler)",
    "int8_block": "base, int8 weights in blocks",
    "bf16": "base, bf16",
    "noise": "base, weights with noise",
    "own_int8": "base, layers in int8 as in this run",
    "own_nf4": "base, layers in nf4 as in this run",
}
BY_ANCHOR = {
    "anchor=has": "kinds of text that the anchor of training has too",
    "anchor=lacks": "kinds that it has no text of",
}
FIGURES = suite.figures(SUITE)
HEADLINE = (FIGURES[0], FIGURES[2])
