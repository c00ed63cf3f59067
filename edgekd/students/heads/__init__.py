"""Heads: what answers a task's questions from a trunk's features, one file a kind.

A head's module gives *raw* answers, which losses and teachers work with; its decoder turns them into the outputs that
a file has (`edgekd.tasks.rows`), and becomes part of the exported graph (`deployed`).
"""
