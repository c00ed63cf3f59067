"""Measurement statistics: figures with intervals, comparisons, and the conditions that make them doubtful.

The unit of replication is the fresh process, never the call. Numbers go in and numbers come out: devices and clocks are
passed in, raw rounds are kept in the `Measurement`, and nothing here upgrades a kind of evidence.
"""
