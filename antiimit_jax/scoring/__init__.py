"""How probable is each word after a prompt, exactly: one packed pass through the model."""
