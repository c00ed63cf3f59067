"""Distillation: losses, augmentations, the training loop, and the recipe stage `distill`.

One loss is one file in ``losses/``, one augmentation one file in ``augment/``. ``loop.py`` trains, ``stage.py`` is the
recipe stage ``distill``, ``predict.py`` runs a trained module on raw samples. By default the teacher is not called
while a student trains: its logits and features come from the cache, one set for each view (``cache: false`` calls it
for every batch). Importing this package loads no torch.
"""
