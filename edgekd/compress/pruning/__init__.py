"""Pruning a person's own model into a family of smaller ones: channels in groups, and whole residual blocks.

`groups` finds which channels must go together and shows by trial that they can; `blocks` finds residual blocks that
can be left out; `family` makes a finite space of both.
"""
