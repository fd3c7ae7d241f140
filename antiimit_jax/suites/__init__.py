"""What is measured: one module a suite, and their names."""

from antiimit_jax.suites import (
    control,
    drift,
    ladder,
    leak,
    precision,
    rare_rates,
    residual,
    scoring,
)

SUITES = {
    "control": control,
    "scoring": scoring,
    "precision": precision,
    "residual": residual,
    "ladder": ladder,
    "rare_rates": rare_rates,
    "drift": drift,
    "leak": leak,
}
