"""Fine-tuning an adapter so that the model's word distribution follows the request."""
