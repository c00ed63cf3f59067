"""Iterative pruning, and the user's own model that it starts from."""
