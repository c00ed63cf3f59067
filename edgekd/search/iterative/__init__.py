"""Iterative pruning, and the model that it starts from."""
