"""Asking a model many questions on all local devices, and what its answers amount to."""
