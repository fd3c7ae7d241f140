"""antiimit_jax: can a language model control its own output distribution, and what does it cost?"""
