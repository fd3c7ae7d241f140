"""Tasks: what is asked, as data. No JAX here."""
