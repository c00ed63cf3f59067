"""How a student learns: losses, views, the training loop and the stage that puts them together.

A loss is one file in ``losses/``; a view is one file in ``augment/``. ``loop.py`` trains, ``stage.py`` is what a
recipe names ``distill``, ``predict.py`` asks a trained module. Teachers are never called while a student trains: their
answers come from the cache, one set of answers a view. Importing this package loads no torch.
"""
