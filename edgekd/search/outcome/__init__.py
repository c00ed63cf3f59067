"""Outcome of a run: summary, nearest candidates where nothing fits, and explanations."""
