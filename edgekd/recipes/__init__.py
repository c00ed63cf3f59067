"""Recipes: lists of stages run in order. Each stage's key covers everything before it; none runs twice.

``runner.py`` checks and runs a list; ``key.py`` computes the digest of a student; ``teach.py`` trains a teacher for
projects that bring none. Stages of several trainings: ``born_again.py``, ``layerwise.py``, ``mutual.py``; ``auto.py``
stands for a training that is chosen later.
"""
