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

What was tried, on items of an earlier draw (ignoring the request scores .238 there, .229 now; two
words, `heldout_words`; 120 to 240 items, the last two rows whole studies of 400 steps). "As before"
means two phrasings a step, `groups` 1 and `rows` 8; all of these had them:

    changed                                             steps  TVD   mass  within  top-1 agreement
    learning_rate 2e-3, anchor weight 1, 64 tokens        300  .189  .967    .508  not measured
    learning_rate 2e-3, anchor weight 10, 128 tokens      240  .209  .946    .449  .877
    learning_rate 1e-3, anchor weight 5, 128 tokens       240  .204  .949    .418  .938
    the same in half the batch, anchor of 64 tokens       480  .222  .955    .424  .916
    as before, but each word set asked once               140  .299  .922    .273  .942
    as before                                             140  .286  .932    .303  .936
    four times the learning rate on b                     140  .292  .933    .169  .842
    Muon instead of Adam                                  140  .323  .932    .117  .916
    clear percentages first, anchor of 64 tokens          400  .160  .961    .604  .912
    as before, its placebo trained for 150 steps          400  .163  .961    .593  .933

On today's items, whole studies, `heldout_words` (ignoring the request .229, a step function .105):

    changed                                      steps  TVD   mass  gamma  preference  gain  top-1
    as before                                      460  .193  .956   1.12     1.58     .112
    eight phrasings a step, learning_rate 1.1e-3   400  .202  .959   1.10     1.55     .107  .930
    the same, 2e-3, anchor of 192 tokens           480  .191  .966   1.11     1.42     .111  .883
    this file: the same with 21 phrasings          280  .205  .959   1.21     1.68     .104  .893

The last line takes little more than half of the time of the one before, and carries further: TVD
is .295 on phrasings never trained on (.441 with eight phrasings), and of the gamma of plain
requests other languages keep .39 (.24), long words and the like .95 (.74). What it costs is `leak`:
shares follow a percentage that is merely mentioned with slope .248 (.096).

On `dev_words` of today's items, 150 steps each (192 items of 22 word sets; ignoring the request
scores .228, on the 128 items of one line .269):

    changed                                             TVD   mass   gamma  preference  gain  top-1
    as before: two phrasings a step                     .273  .949    .43     1.65      .060
    eight, in a quarter more tokens                     .233  .941    .61     1.52      .085  .936
    eight, learning_rate 2e-3                           .204  .953    .90     1.56      .103  .894
    the same, adapters of rank 64                       .202  .947    .85     1.48      .106  .899
    the same, adapters on attention alone               .255  .942    .55     1.75      .070
    the same, each set also named from its other end    .225  .959   1.10     1.96      .090  .907
    learning_rate 2e-3, every other set of four words   .246  .946    .54     1.52      .074
    as before, symmetry .25                             .294  .944    .26     1.72      .043
    symmetry 1, anchor of 64 tokens (128 items)         .341  .914    .27
    four phrasings more that name the words first
      (`then`, `share`, in a file for --templates),
      each set asked eight times, items of these too    .331  .950    .17     1.75      .014
    the same, mass 1                                    .330  .972    .18     1.99      .011

With the 21 phrasings of this file, 150 steps (192 items of 24 sets); in the last column TVD on
phrasings never trained on:

    changed                                          TVD   mass  gamma  preference  gain  top-1
    learning_rate 2e-3                               .231  .952  1.01     1.75      .092  .892  .330
    learning_rate 3e-3                               .204  .951   .97     1.38      .112  .841  .283

On words that it was trained on the first of these has TVD .242 and a preference of 1.84: what is
lacking is steps or a larger model, not words.

`within` is how well shares given follow shares asked within a word set (`corr_within`), `gain` the
request gain, `preference` the spread of the preference between words, in logits, which falls
slowly with steps. More phrasings a step learn faster, and end where fewer do. A higher learning
rate learns faster, carries further (long words and phrases, other languages) and costs the rest of
the model, which neither the anchor's weight nor its length makes up for: with 1.1e-3 the model
stays nearer to its base. Phrasings that name a percentage before its word are learnt first (slopes
of .9 to 1.9 after 150 steps of two phrasings, the others .3 to 1.0); those with all words first
had .0.
More steps do not bring the placebo to equal shares (TVD .36 from 140 to 300 steps): it keeps a
preference between the words of a set, even when it is trained on exactly one half for each word.
So it is trained for 40 steps: its mass is .87 then, and its request gain ends below 0.

What was aimed at and is not reached by this file's study, and what bounds it:

    TVD .12 (is .205)           the preference: the same answers with its spread shrunk from 1.68 to
                                .8 would have .148, and .131 with all mass on the words; with no
                                preference .115
    preference .8 (1.68)        nothing tried lowers it but steps and the learning rate; a wider
                                adapter, symmetry, both orders or more words a set do not
    request gain .12 (.104)     the preference: .133 with the spread of .8
    less than .05 above a step  the preference again: the upper end of the paired difference is .137
    gamma at most 1.15 (1.21)   with eight phrasings and 480 steps it was 1.11; its interval holds 1
    gamma_corr .9 (.83)         noise within a set, about the slope
    mass .97 (.959)             steps: .966 after 480
    top-1 .93 (.893)            the learning rate: .930 with 1.1e-3, which had a TVD of .202
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
