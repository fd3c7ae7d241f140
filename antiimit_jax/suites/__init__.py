"""What is measured: one module a suite, and their names."""

from antiimit_jax.suites import control, drift, leak, precision, rare_rates, residual, scoring

SUITES = {
    "control": control,
    "scoring": scoring,
    "precision": precision,
    "residual": residual,
    "drift": drift,
    "leak": leak,
    "rare_rates": rare_rates,
}
