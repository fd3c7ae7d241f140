"""`python -m launch.benchmark`: our speed against transformers and PEFT, and how it grows."""
