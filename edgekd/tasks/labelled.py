"""Splits of labelled images: the base of all classification tasks.

Validation is carved out of the training images unless the data has its own. Calibration images are training images and
stay among them: quantization ranges need no held-out data. Training images that are also in validation or test are left
out. Of the test images only hashes are kept until that split is requested. If there are no training images, which is
the case for the stage `data-free`, calibration is carved out of the validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.records import Digest, digest_json
from edgekd.tasks._protocol import Rows, Split, SplitName, SplitSizes
from edgekd.tasks.blocks import blocks
from edgekd.tasks.mapped import gathered
from edgekd.tasks.splits import carve, content_keys, digest_arrays

__all__ = ["CarvedImages", "LabelledImages", "rounded", "statistics"]

_LEAST_VALIDATED = 20  # without training images: half of them may become calibration


@dataclass(frozen=True)
class LabelledImages:
    """Inputs (N, C, H, W), raw and in any memory order, with labels (N,), possibly records (`rows`)."""

    inputs: NDArray[np.generic]
    labels: Rows

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Hash of each sample's content: equal samples have equal keys."""
        return content_keys(self.inputs)

    @property
    def own_keys(self) -> NDArray[np.uint64]:
        """Keys by which calibration is carved out of training; `keys` are equal for samples that must stay together."""
        return self.keys

    @cached_property
    def digest(self) -> Digest:
        """Digest of inputs and labels, in order."""
        return digest_arrays(self.inputs, self.labels)

    def moments(self, per_channel: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation; see `statistics`."""
        return statistics(self.inputs, per_channel)

    def take(self, indices: NDArray[np.int64]) -> LabelledImages:
        """Return some samples, channel-first: a view if they are contiguous, else a copy."""
        return LabelledImages(self._inputs_of(indices), self.labels[indices])

    def _inputs_of(self, indices: NDArray[np.int64]) -> NDArray[np.generic]:
        first = int(indices[0]) if len(indices) else 0
        if self.inputs.flags.c_contiguous and np.array_equal(indices, np.arange(first, first + len(indices))):
            return self.inputs[first : first + len(indices)]
        parts = (self.inputs[indices[block]] for block in blocks(indices, self.inputs[:1].nbytes))
        return gathered(parts, self.inputs.dtype, (len(indices), *self.inputs.shape[1:]))


class _TestFacts(NamedTuple):
    """Facts kept of the test images before their split is requested."""

    keys: NDArray[np.uint64]
    digest: Digest
    highest_label: int
    samples: int


@dataclass(frozen=True)
class CarvedImages:
    """The four splits. ``test`` is called for its hashes, and again each time the test split is requested."""

    what: str  # name of the data in messages
    train: LabelledImages | None  # None: there are none, but validation exists
    test: Callable[[], LabelledImages]
    validation: LabelledImages | None
    validation_fraction: float
    calibration_count: int
    train_limit: int | None = None

    def split(self, name: SplitName) -> Split:
        """Return one split, channel-first. Raises ConfigurationError if it has no samples."""
        if name == "test":
            images = self.test()
            return _split(name, images.take(np.arange(len(images))))
        return _split(name, self._parts[name])

    @cached_property
    def data(self) -> Digest:
        """Identity of all four splits."""
        return digest_json({"test": self._test.digest, **{name: part.digest for name, part in self._parts.items()}})

    @property
    def described(self) -> LabelledImages:
        """Images that define shape, range and labels: training, or calibration if there are no training images."""
        return self._parts["calibration" if self.train is None else "train"]

    @property
    def sizes(self) -> SplitSizes:
        """Number of samples in each split."""
        counts = {name: len(part) for name, part in self._parts.items()}
        return SplitSizes(
            train=counts["train"],
            validation=counts["validation"],
            test=self._test.samples,
            calibration=counts["calibration"],
            calibrated_on="validation" if self.train is None else "train",
            validated_on="train" if self.validation is None else None,
        )

    @property
    def highest_test_label(self) -> int:
        """Largest label of the test split."""
        return self._test.highest_label

    @cached_property
    def _test(self) -> _TestFacts:
        images = self.test()
        return _TestFacts(images.keys, images.digest, int(_strata(images.labels).max()), len(images))

    @cached_property
    def _parts(self) -> dict[SplitName, LabelledImages]:
        if self.train is None:
            return self._without_training()
        keys = self.train.keys
        parts: dict[SplitName, LabelledImages] = {}
        elsewhere = self._test.keys
        if self.validation is not None:
            validation_keys = self.validation.keys
            own = np.flatnonzero(~np.isin(validation_keys, elsewhere))
            parts["validation"] = self.validation.take(own)
            elsewhere = np.concatenate([elsewhere, validation_keys])
        free = np.flatnonzero(~np.isin(keys, elsewhere))
        validation_count = 0 if self.validation is not None else round(self.validation_fraction * len(free))
        strata = _strata(self.train.labels)
        validation, rest = (free[part] for part in carve(keys[free], strata[free], [validation_count]))
        if self.train_limit is not None:
            rest = rest[carve(self.train.own_keys[rest], strata[rest], [self.train_limit])[0]]
        calibration = rest[carve(self.train.own_keys[rest], strata[rest], [self.calibration_count])[0]]
        parts.setdefault("validation", self.train.take(validation))
        parts["train"] = self.train.take(rest)
        parts["calibration"] = self.train.take(calibration)
        for name, part in parts.items():
            if not len(part):
                raise ConfigurationError.one(
                    f"{self.what}: no sample is left for {name} "
                    f"({len(self.train)} for training, {len(free)} of them not in test or validation)",
                    "lower `validation`, or give more data",
                )
        return parts

    def _without_training(self) -> dict[SplitName, LabelledImages]:
        assert self.validation is not None
        keys = self.validation.keys
        own = np.flatnonzero(~np.isin(keys, self._test.keys))
        if len(own) < _LEAST_VALIDATED:
            raise ConfigurationError.one(
                f"{self.what}: there are no training samples, and {len(own)} for validation that are not in test",
                f"give {_LEAST_VALIDATED} or more",
            )
        count = min(self.calibration_count, len(own) // 2)
        calibration, rest = (own[part] for part in carve(keys[own], _strata(self.validation.labels)[own], [count]))
        nothing = np.empty(0, np.int64)
        parts: dict[SplitName, NDArray[np.int64]] = {"validation": rest, "calibration": calibration, "train": nothing}
        return {name: self.validation.take(part) for name, part in parts.items()}


def _strata(labels: Rows) -> NDArray[np.int64]:
    """Return the strata of a stratified split: classes of the whole image, if there are any."""
    if labels.dtype.names is None:
        return labels
    of_image = [name for name in labels.dtype.names if labels[name].ndim == 1]
    return np.asarray(labels[of_image[0]], np.int64) if of_image else np.zeros(len(labels), np.int64)


def statistics(inputs: NDArray[np.generic], per_channel: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of raw inputs (N, C, H, W): one value or one for each channel, six digits.

    Rounded so that two machines which add in another order agree.
    """
    channels = [inputs[:, c] for c in range(inputs.shape[1])] if per_channel else [inputs]
    pairs = [_moments(channel) for channel in channels]
    means, stds = zip(*pairs, strict=True)
    return rounded(means), rounded(stds)


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Round to six significant digits."""
    return tuple(float(f"{value:.6g}") for value in values)


def _moments(values: NDArray[np.generic]) -> tuple[float, float]:
    if values.dtype == np.uint8:
        counts = np.zeros(256, np.int64)
        for block in blocks(values):
            counts += np.bincount(values[block].ravel().view(np.uint8), minlength=256)
        levels = np.arange(256, dtype=np.float64)
        mean = float(counts @ levels / counts.sum())
        return mean, float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))
    mean = float(values.mean(dtype=np.float64))
    squares = sum(float(np.sum((values[block].astype(np.float64) - mean) ** 2)) for block in blocks(values))
    return mean, float(np.sqrt(squares / values.size))


def _split(name: SplitName, images: LabelledImages) -> Split:
    return Split(name, images.inputs, images.labels, images.digest)
