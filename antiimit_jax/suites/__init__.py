"""What is measured: one module a suite, and their names."""

from antiimit_jax.suites import (
    control,
    deviate,
    drift,
    introspection,
    ladder,
    leak,
    precision,
    rare_rates,
    residual,
    sad_like,
    scoring,
    seed_words,
)

SUITES = {
    "control": control,
    "scoring": scoring,
    "precision": precision,
    "residual": residual,
    "ladder": ladder,
    "sad_like": sad_like,
    "seed_words": seed_words,
    "rare_rates": rare_rates,
    "deviate": deviate,
    "introspection": introspection,
    "drift": drift,
    "leak": leak,
}
