"""The names of control's figures, splits and baselines, and what people are told of them."""

from antiimit_jax.results import Figure

SUITE = "control"
SPLITS = {  # in order of interest
    "heldout_words": "words never trained on, percentages trained on",
    "heldout_both": "neither the words nor the percentages were trained on",
    "heldout_percent": "words trained on, percentages never trained on",
    "train": "words and percentages seen in training",
}
BASELINES = {
    "baseline:perfect": "perfect controller",
    "baseline:uniform": "uniform: ignores the request",
    "baseline:argmax": "argmax: all on the larger word",
    "baseline:two_level": "step function: larger of two words always 75%",
    "baseline:rank_only": "rank only: best fixed shares by rank",
    "baseline:flip": "flip: the words' shares swapped",
    "baseline:constant_60_40": "constant 60/40",
    "baseline:prior": "prior: base model, no percentages in prompt",
    "baseline:few_shot_copy": "few-shot copy: last example's shares",
}
FIGURES = (
    Figure(
        name="tvd_res",
        label="TVD",
        explanation="how much probability sits in the wrong place, from 0 (exactly as asked) to 1; "
        "what falls outside the asked words counts as wrong. (tvd_res)",
    ),
    Figure(
        name="mass",
        label="mass",
        explanation="probability of giving any of the asked words at all, properly ended. Near 0 "
        "means that the model does not answer in the format; 1 is best.",
        best="high",
    ),
    Figure(
        name="corr",
        label="corr",
        explanation="correlation between the share asked and the share given, on items with mass "
        "0.05 or more. Knowing only which word is to be larger already reaches about 0.87.",
        best="high",
    ),
    Figure(
        name="corr_within",
        label="corr within",
        explanation="the same correlation inside requests below and above 50%, averaged. Knowing "
        "only which word is larger scores 0; graded control scores towards 1.",
        best="high",
        needs="two-word items on either side of one half",
    ),
    Figure(
        name="skill",
        label="skill",
        explanation="1 − TVD / TVD of the better of two lazy answers (equal shares, or everything "
        "on the larger word). 0 is lazy, 1 is perfect, below 0 is worse than lazy.",
        best="high",
    ),
    Figure(
        name="skill_over_rank",
        label="skill over rank",
        explanation="the same against the best fixed shares by rank. Above 0 only if the "
        "percentages are used beyond the order of the words.",
        best="high",
    ),
    Figure(
        name="kl_fwd",
        label="KL",
        explanation="what training lowers: KL(asked‖given) in nats, 0 at best. A word given no "
        "probability costs up to 69 nats, so a few such items can dominate the mean.",
    ),
    Figure(
        name="kl_fwd_median",
        label="KL median",
        explanation="the same for the middle item, not moved by a few items without an answer.",
    ),
    Figure(name="residual", label="residual"),
)
SHOWN = FIGURES[:-1]  # in the page's main table
HEADLINE = tuple(
    f for f in FIGURES if f.name in ("tvd_res", "mass", "corr_within", "skill_over_rank")
)
LAZY = {  # beside the headline
    "baseline:uniform": "ignores the request",
    "baseline:argmax": "all on the larger",
    "baseline:two_level": "step function",
    "baseline:rank_only": "rank only",
    "baseline:perfect": "perfect",
}
