"""Structured pruning of a person's own model: dependent channel groups, and whole residual blocks.

`groups` finds channels that must be removed together and verifies by trial that they can; `blocks` finds removable
residual blocks; `family` makes a finite space of both.
"""
