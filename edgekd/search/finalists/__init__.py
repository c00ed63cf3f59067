"""Finalists: shortlist, full training, and the final choice."""
