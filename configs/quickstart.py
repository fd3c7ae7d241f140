"""SmolLM2-135M-Instruct on a laptop: measure, fine-tune, measure again.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart

It says at its start how long it takes: 23 minutes on two cores that multiply at 480 GFLOP/s in
float32 and 949 in bfloat16, so 27 at 400 and 790. To expect on `heldout_words`, two words: TVD .205
[.171, .242], mass .959, gamma 1.21 [.96, 1.46], request gain .104 where the base has .961, .043,
-.03 and 0; top-1 agreement with the base on unrelated text .893 (one training seed).
LoRA of rank 16 on all linear layers, AdamW with warm-up and cosine, about 35 requests a step in
eight of 21 phrasings, each word set asked twice, exact forward KL, and KL to the base on unrelated
text (the anchor).

Which of the ladder's rungs it is trained on stands in `configs/rungs.tsv`: L0 alone.

What was tried, on `dev_words` (192 items of 22 to 24 word sets; ignoring the request scores .228, a
step function .107), for 150 steps where no other number stands, at a learning rate of 1.1e-3 where
none does. "Eight" are phrasings a step, of eight in all; top-1 is agreement on unrelated text:

    changed                                            TVD   mass  gamma  preference  gain  top-1
    two phrasings a step                              .273  .949    .43      1.65     .060
    eight, in a quarter more tokens                   .233  .941    .61      1.52     .085  .936
    eight, 2e-3                                       .204  .953    .90      1.56     .103  .894
    the same, adapters of rank 64                     .202  .947    .85      1.48     .106  .899
    the same, sets also named from their other end    .225  .959   1.10      1.96     .090  .907
    eight, 2e-3, every other set of four words        .246  .946    .54      1.52     .074
    two, symmetry .25                                 .294  .944    .26      1.72     .043
    two and four that name the words first, each set
      asked eight times, mass 1                       .330  .972    .18      1.99     .011
    eight of 21 phrasings, 2e-3                       .231  .952   1.01      1.75     .092  .892
    the same, 280 steps: this file                    .176  .971   1.17      1.31     .110  .893

Also: adapters on attention alone .255 (gamma .55), symmetry 1 .341 (.27), 3e-3 with 21 phrasings
.204 (top-1 .841); on an earlier draw four times the learning rate on b, Muon, each set asked once
and longer or heavier anchors were no better.

Whole studies, on `heldout_words` (ignoring the request .229, a step function .105):

    changed                                     steps   TVD   mass  gamma  preference  gain  top-1
    eight phrasings, 1.1e-3                        400  .202  .959   1.10      1.55     .107  .930
    eight, 2e-3, anchor of 192 tokens              480  .191  .966   1.11      1.42     .111  .883
    eight of 21 phrasings, the same: this file     280  .205  .959   1.21      1.68     .104  .893

21 phrasings were taken after two of these studies, for time and for phrasings never trained on: TVD
there is .295 (.441 with eight), which that choice flatters a little. Of the gamma of plain requests
other languages keep .39 (.24), long words and the like .95 (.74). What it costs is `leak`: shares
follow a percentage that is merely mentioned with slope .248 (.096).

More phrasings a step learn faster, and end where fewer do. A higher learning rate learns faster,
carries further (long words and phrases, other languages) and costs the rest of the model, which
neither the anchor's weight nor its length makes up for: with 1.1e-3 the model stays nearer to its
base. Phrasings that name a percentage before its word are learnt first (slopes of .9 to 1.9 after
150 steps of two phrasings, the others .3 to 1.0); those with all words first had .0.
More steps do not bring the placebo to equal shares (TVD .36 from 140 to 300 steps): it keeps a
preference between the words of a set, even when it is trained on exactly one half for each word.
So it is trained for 40 steps: its mass is .87 then, and its request gain ends below 0.

What was aimed at and is not reached by this file's study, and what bounds it. At 400 GFLOP/s in
float32 and 790 in bfloat16 its steps take 11 of 20 minutes, and half an hour for the whole study
has space for some 90 more:

    TVD .12 (is .205)           the preference: the same answers with its spread shrunk from 1.68 to
                                .8 would have .148, and .131 with all mass on the words; with no
                                preference .115. New words cost .047 [.001, .093] beside known ones
    preference .8 (1.68)        it falls with steps and the learning rate alone; a wider adapter,
                                symmetry, both orders or more words a set do not lower it
    request gain .12 (.104)     the preference: .133 with the spread of .8
    less than .05 above a step  the preference: .043 with the spread of .8, but an upper end of .07;
                                with none .010 and .034
    gamma at most 1.15 (1.21)   its interval holds 1, but within word sets the slope is 1.45 [1.28,
                                1.61]: sharper than asked. 1.10 with eight phrasings, given up for
                                time and phrasings never trained on
    gamma_corr .9 (.83)         slopes that differ between sets and noise within them, each about
                                half: without either it would be about .9
    mass .97 (.959)             steps: .966 after 480
    top-1 .93 (.893)            the learning rate: .930 with 1.1e-3, given up likewise
    held-out phrasings better than ignoring the request (.295 against .231): not told apart from it
"""

import ml_collections

from antiimit_jax.run_config import RunConfig, to_dict


def get_config() -> ml_collections.ConfigDict:
    """All fields with their defaults, and what this study sets."""
    config = ml_collections.ConfigDict(to_dict(RunConfig()))
    config.model = "smollm2-135m-instruct"
    config.suites = ("control", "scoring", "precision", "residual", "drift")
    config.suites += ("leak", "sad_like", "ladder")

    # Trained on two words without examples: what two fast cores can learn in a quarter of an hour.
    # More words, examples and other phrasings are then requests that it never saw.
    config.train.mixture.ks = (2,)
    config.train.mixture.k_weights = (1.0,)
    config.train.mixture.shots = (0,)
    config.train.mixture.shot_weights = (1.0,)
    config.train.steps = 280
    config.train.placebo_steps = 40
    config.train.learning_rate = 2e-3
    config.train.anchor_weight = 6.0
    config.train.anchor_tokens = 192
    config.train.groups = 4  # of a microbatch, of which a step has two: eight phrasings
    config.train.rows = 2
    config.train.row_tokens = 64  # a word set with both its requests, and little to attend to

    for suite in ("scoring", "precision", "residual"):
        config[suite].n_items = 24
    config.drift.n_prompts = 64
    config.drift.n_continued = 0  # configs/full.py has the base's own answers
    return config
