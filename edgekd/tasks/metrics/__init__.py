"""Metrics of each kind of head, by standard libraries, so that figures are comparable with published ones."""
