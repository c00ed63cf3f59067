"""Recipes: lists of stages run in order, each keyed by everything before it, none run twice.

``runner.py`` checks and runs a list; ``key.py`` says what a student is, as a digest; ``teach.py`` trains a teacher for
projects that bring none. Stages made of several trainings are here too: ``born_again.py``, ``layerwise.py``,
``mutual.py``; ``auto.py`` stands for a training that is still to be chosen.
"""
