"""Shared by the tests of views: a task's spec and some images."""

from __future__ import annotations

import pytest
import torch

from edgekd.records import digest_json
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

pytest.register_assert_rewrite("edgekd.testing.contracts.augmentation")


@pytest.fixture
def make_spec():
    """A function to a task of ten classes; RGB images of 32 x 32 bytes unless it says otherwise."""

    def make(shape=(3, 32, 32), flip=True, **options):
        given = InputSpec(shape=shape, **options)
        return TaskSpec(name="t", input=given, head=HeadSpec(classes=10), data=digest_json("d"), flip=flip)

    return make


@pytest.fixture
def make_images():
    """A function to random bytes from 1 to 255, so that zeros are what a view has put there."""

    def make(count=40, shape=(3, 8, 6)):
        return torch.randint(1, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    return make
