from __future__ import annotations

import numpy as np

from edgekd.distill.augment.flip import Flip


def test_flip_mirrors_about_half(make_images):
    batch = make_images(400)
    found = Flip()(batch, np.arange(400), 0)
    mirrored = sum(bool((f == b.flip(-1)).all()) for f, b in zip(found, batch, strict=True))
    same = sum(bool((f == b).all()) for f, b in zip(found, batch, strict=True))
    assert mirrored + same == 400
    assert 150 < mirrored < 250


def test_a_task_whose_labels_do_not_survive_it_is_refused(make_spec):
    (problem,) = Flip().check(make_spec(flip=False))
    assert "does not keep its label" in problem.message
