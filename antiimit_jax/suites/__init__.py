"""What is measured: one module a suite, and their names."""

from antiimit_jax.suites import control, deviate, drift, precision, residual, sad_like, scoring

SUITES = {
    "control": control,
    "scoring": scoring,
    "precision": precision,
    "residual": residual,
    "sad_like": sad_like,
    "deviate": deviate,
    "drift": drift,
}
