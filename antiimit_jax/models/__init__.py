"""The port: from a named checkpoint to a Flax decoder, its weights, and LoRA adapters on it."""
