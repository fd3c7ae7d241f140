"""What is measured: one module a suite, and their names."""

from antiimit_jax.suites import control, drift, ladder, precision, residual, scoring

SUITES = {
    "control": control,
    "scoring": scoring,
    "precision": precision,
    "residual": residual,
    "ladder": ladder,
    "drift": drift,
}
