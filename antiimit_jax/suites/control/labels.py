"""The names of control's figures, splits and baselines, and what people are told of them."""

from antiimit_jax.suites import suite

SUITE = "control"
SPLITS = {  # of a whole study, in order of interest
    "heldout_words": "words never trained on, percentages trained on",
    "heldout_both": "neither the words nor the percentages were trained on",
    "heldout_percent": "words trained on, percentages never trained on",
    "train": "words and percentages seen in training",
}
ALL_SPLITS = SPLITS | {
    "dev_words": "words never trained on, kept for the choice of settings; percentages trained on"
}
BASELINES = {
    "baseline:perfect": "perfect controller",
    "baseline:uniform": "uniform: ignores the request",
    "baseline:argmax": "argmax: all on the larger word",
    "baseline:two_level": "step function: larger of two words always 75%",
    "baseline:rank_only": "rank only: best fixed shares by rank",
    "baseline:best_temperature": "best temperature: the base's shares, sharpened or flattened",
    "baseline:flip": "flip: the words' shares swapped",
    "baseline:constant_60_40": "constant 60/40",
    "baseline:prior": "prior: base model, no percentages in prompt",
    "baseline:few_shot_copy": "few-shot copy: last example's shares",
}
FIGURES = suite.figures(SUITE)
_MAIN = ("tvd_res", "mass", "gamma", "gamma_step", "request_gain", "skill")
_IN_FILE = ("residual", "gamma_within")  # in metrics.json alone
MAIN = tuple(f for f in FIGURES if f.name in _MAIN)  # first on the page
_OF_SETS = ("first_position_bias", "word_prior", "preference_sd", "pair_icc")
OF_SETS = tuple(f for f in FIGURES if f.name in _OF_SETS)  # on the page, on demand, as the rest
FURTHER = tuple(f for f in FIGURES if f.name not in (*_MAIN, *_OF_SETS, *_IN_FILE))
_BY_NAME = {figure.name: figure for figure in FIGURES}
HEADLINE = tuple(
    _BY_NAME[name]
    for name in ("tvd_res", "mass", "request_gain")
    + ("gamma", "gamma_step", "gamma_corr", "preference_sd")  # what shows graded control
)
LAZY = {  # beside the headline
    "baseline:uniform": "ignores request",
    "baseline:argmax": "all on larger",
    "baseline:two_level": "step function",
    "baseline:rank_only": "rank only",
    "baseline:perfect": "perfect",
}
