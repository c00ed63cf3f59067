"""Splits are decided by content."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.splits import carve, content_keys, digest_arrays, spread


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (600, 1, 4, 4), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, 600).astype(np.int64)


def test_equal_samples_have_equal_keys_in_any_memory_order(inputs):
    keys = content_keys(inputs)
    strided = np.asfortranarray(inputs)
    assert np.array_equal(keys, content_keys(strided))
    assert len(np.unique(keys)) == len(inputs)
    floats = inputs.astype(np.float32)
    assert np.array_equal(content_keys(floats), content_keys(floats.astype(">f4")))


def test_parts_cover_everything_once(inputs, labels):
    parts = carve(content_keys(inputs), labels, [100, 50])
    assert [len(part) for part in parts] == [100, 50, 450]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(600))


def test_of_more_classes_than_samples_wanted_some_of_all_numbers_are_taken(inputs):
    labels = np.repeat(np.arange(60), 10)
    part = carve(content_keys(inputs), labels, [30])[0]
    assert len(np.unique(labels[part])) == 30
    assert 10 <= np.sum(labels[part] >= 30) <= 20


def test_classes_have_the_same_shares(inputs, labels):
    part = carve(content_keys(inputs), labels, [200])[0]
    whole, found = np.bincount(labels) / 600, np.bincount(labels[part]) / 200
    assert np.abs(whole - found).max() < 0.01


def test_twins_are_never_parted(inputs, labels):
    inputs[300:] = inputs[:300]  # every sample twice, with labels that disagree
    keys = content_keys(inputs)
    for part in carve(keys, labels, [101, 77]):
        chosen = set(part.tolist())
        assert all((index + 300) % 600 in chosen for index in chosen)


def test_order_of_samples_does_not_matter(inputs, labels):
    shuffle = np.random.default_rng(2).permutation(600)
    part = carve(content_keys(inputs), labels, [100])[0]
    shuffled = carve(content_keys(inputs[shuffle]), labels[shuffle], [100])[0]
    assert set(shuffle[shuffled].tolist()) == set(part.tolist())


def test_asking_for_more_than_there_is_leaves_nothing(inputs, labels):
    parts = carve(content_keys(inputs), labels, [500, 500])
    assert [len(part) for part in parts] == [500, 100, 0]


def test_a_part_of_none_is_empty(inputs, labels):
    assert [len(part) for part in carve(content_keys(inputs), labels, [0, 10])] == [0, 10, 590]


def test_digest_sees_values_shape_and_type(inputs):
    digests = {
        digest_arrays(inputs),
        digest_arrays(inputs.reshape(600, 16)),
        digest_arrays(inputs.astype(np.float32)),
        digest_arrays(inputs[::-1]),
        digest_arrays(inputs, inputs),
    }
    assert len(digests) == 5
    assert digest_arrays(inputs) == digest_arrays(np.asfortranarray(inputs))


@pytest.mark.parametrize(("available", "wanted", "count"), [(1000, 20, 20), (7, 64, 7), (1, 10, 1), (0, 10, 0)])
def test_few_samples_are_taken_from_all_of_them(available: int, wanted: int, count: int) -> None:
    chosen = spread(available, wanted)
    assert len(set(chosen)) == len(chosen) == count
    assert not count or (chosen[0], chosen[-1]) == (0, available - 1)
    by_class = np.repeat(np.arange(10), 100)  # as a folder of folders has them
    assert len(by_class) != available or set(by_class[chosen]) == set(range(10))
