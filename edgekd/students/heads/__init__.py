"""Heads: output layers on a trunk's features, one file for each kind.

A head's module computes *raw* outputs, which losses and teachers use; its decoder converts them to the outputs of a
file (`edgekd.tasks.rows`), and becomes part of the exported graph (`deployed`).
"""
