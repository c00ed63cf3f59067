"""Contract of an augmentation that ``augment`` can name, once it is bound to a task; subclass `AugmentationContract`.

- what a sample looks like depends on the seed and the sample, not on its batch nor on the order of samples
- another seed is another view, and so is another sample of the same pixels
- neither inputs nor labels are changed
- the samples' shape is kept, in their dtype or float32, without NaN or infinity
- targets are the labels themselves, or shares of the classes that add up to 1 and agree with the pixels
- options survive JSON, and other options have another digest
- a task that the view is fit for is not refused
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distill.augment._protocol import Augmentation
from edgekd.records import digest_json
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

__all__ = ["AugmentationContract"]

_COUNT = 40


class AugmentationContract:
    """Run on a view by overriding ``options`` and ``other``, and ``shape`` where samples are no RGB images."""

    @pytest.fixture
    def options(self) -> Augmentation:
        """The view under test, as it is read from a recipe."""
        raise NotImplementedError("override the fixture `options`")

    @pytest.fixture
    def other(self) -> Augmentation:
        """Another one: the same with other options or, if there are none, any other."""
        raise NotImplementedError("override the fixture `other`")

    @pytest.fixture
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return (3, 18, 16)

    @pytest.fixture(params=["uint8", "float32"])
    def spec(self, request: pytest.FixtureRequest, shape: tuple[int, ...]) -> TaskSpec:
        """A task of two classes whose images may be mirrored, with whole raw values and with floats."""
        whole = request.param == "uint8"
        given = InputSpec(shape=shape, raw_dtype=request.param, raw_range=(0.0, 255.0) if whole else (-1.0, 3.0))
        return TaskSpec(name="t", input=given, head=HeadSpec(classes=2), data=digest_json("d"), flip=True)

    @pytest.fixture
    def view(self, options: Augmentation, spec: TaskSpec) -> Augmentation:
        """Bound to the task."""
        return options.bound(spec)

    @pytest.fixture
    def inputs(self, spec: TaskSpec) -> Tensor:
        """All raw samples."""
        low, high = spec.input.raw_range
        shares = torch.rand((_COUNT, *spec.input.shape), generator=torch.Generator().manual_seed(0))
        return (low + (high - low) * shares).to(getattr(torch, spec.input.raw_dtype))

    @pytest.fixture
    def labels(self) -> Tensor:
        """Theirs."""
        return torch.randint(0, 2, (_COUNT,), generator=torch.Generator().manual_seed(1))

    def test_the_batch_does_not_matter(self, view: Augmentation, inputs: Tensor, labels: Tensor) -> None:
        everything = np.arange(_COUNT)
        whole, taken = view(inputs, everything, 5), view.targets(labels, everything, 5, 2)
        for some in (np.array([7, 3, 31, 0, 7]), np.array([31]), everything[::-1].copy()):
            assert torch.equal(view(inputs, some, 5), whole[some])
            assert torch.equal(view.targets(labels, some, 5, 2), taken[some])

    def test_what_was_drawn_before_does_not_matter(self, view: Augmentation, inputs: Tensor) -> None:
        first = view(inputs, np.arange(9), 5)
        torch.rand(3)
        view(inputs, np.arange(9), 6)
        assert torch.equal(view(inputs, np.arange(9), 5), first)

    def test_another_seed_is_another_view(self, view: Augmentation, inputs: Tensor) -> None:
        everything = np.arange(_COUNT)
        assert not torch.equal(view(inputs, everything, 0), view(inputs, everything, 1))

    def test_another_sample_is_another_view(self, view: Augmentation, inputs: Tensor) -> None:
        alike = inputs[torch.arange(_COUNT) % 2]  # two images, so that a view that mixes has something to mix
        seen = view(alike, np.arange(_COUNT), 0)
        assert len(torch.unique(seen[::2], dim=0)) > 1

    def test_nothing_is_changed_in_place(self, view: Augmentation, inputs: Tensor, labels: Tensor) -> None:
        pixels, classes, indices = inputs.clone(), labels.clone(), np.arange(_COUNT)
        view(inputs, indices, 0).add_(1)  # nor is what comes out a window onto what went in
        view.targets(labels, indices, 0, 2).add_(1)
        assert torch.equal(inputs, pixels)
        assert torch.equal(labels, classes)
        assert np.array_equal(indices, np.arange(_COUNT))

    def test_samples_keep_their_form(self, view: Augmentation, inputs: Tensor) -> None:
        for indices in (np.arange(_COUNT), np.array([3])):
            seen = view(inputs, indices, 2)
            assert seen.dtype in (inputs.dtype, torch.float32)
            assert seen.shape == (len(indices), *inputs.shape[1:])
            assert torch.isfinite(seen).all()

    def test_targets_agree_with_the_pixels(self, view: Augmentation, spec: TaskSpec, labels: Tensor) -> None:
        indices = np.arange(_COUNT)
        targets = view.targets(labels, indices, 4, 2)
        if targets.dtype == torch.int64:
            assert torch.equal(targets, labels)
            return
        low, high = spec.input.raw_range
        plain = torch.full((_COUNT, *spec.input.shape), low)
        plain[labels == 1] = high  # so a mixture's mean says how much of class 1 is in it
        seen = view(plain.to(getattr(torch, spec.input.raw_dtype)), indices, 4).double().flatten(1).mean(1)
        assert targets.dtype == torch.float32
        assert targets.min() >= 0
        torch.testing.assert_close(targets.sum(1), torch.ones(_COUNT))
        torch.testing.assert_close(targets[:, 1].double(), (seen - low) / (high - low), rtol=0, atol=1e-5)

    def test_options_survive_json(self, options: Augmentation, spec: TaskSpec, inputs: Tensor) -> None:
        again = type(options).model_validate_json(options.model_dump_json())
        assert again == options
        assert again.digest() == options.digest()
        assert torch.equal(again.bound(spec)(inputs, np.arange(5), 1), options.bound(spec)(inputs, np.arange(5), 1))

    def test_digests_tell_views_apart(self, view: Augmentation, other: Augmentation, spec: TaskSpec) -> None:
        assert re.fullmatch("[0-9a-f]{64}", view.digest())
        assert view.digest() != other.bound(spec).digest()

    def test_a_fit_task_is_not_refused(self, options: Augmentation, spec: TaskSpec) -> None:
        assert options.check(spec) == []
