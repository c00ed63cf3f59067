"""What the logits of a map learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.distill.heads.segmentation import SegmentationTraining
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.rows import IGNORED

HEAD = HeadSpec(name="mask", kind="segmentation", classes=3)
RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(size=(2, 3, 3, 4)), 3 * RNG.normal(size=(2, 3, 3, 4))
Array = NDArray[np.float64]


def leaf(values: Array) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def resized(logits: Array, size: tuple[int, int]) -> Array:
    """Bilinear, pixels' middles onto each other, the border repeated outwards."""

    def between(length: int, wanted: int) -> Array:
        shares = np.zeros((wanted, length))
        for at in range(wanted):
            place = min(max((at + 0.5) * length / wanted - 0.5, 0), length - 1)
            low = int(place)
            shares[at, low] += 1 - (place - low)
            shares[at, min(low + 1, length - 1)] += place - low
        return shares

    down, along = (between(*pair) for pair in zip(logits.shape[2:], size, strict=True))
    return np.asarray(np.einsum("yh,nchw,xw->ncyx", down, logits, along))


def masks(size: tuple[int, int]) -> NDArray[np.uint8]:
    """With pixels that don't count in the first sample."""
    rng = np.random.default_rng(3)
    found = rng.integers(0, 3, (2, *size)).astype(np.uint8)
    found[0, rng.random(size) < 0.4] = IGNORED
    return found


def learnt(logits: torch.Tensor, labels: NDArray[np.uint8]) -> torch.Tensor:
    found = SegmentationTraining().label_loss(HEAD, [logits], torch.tensor(labels))
    assert found is not None
    return found


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (12, 8), (7, 11)], ids=str)
def test_every_labelled_pixel_counts_alike(size: tuple[int, int]) -> None:
    labels = masks(size)
    logits = resized(LOGITS, size)
    likely = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    each = [-np.log(likely[n, labels[n, y, x], y, x]) for n, y, x in zip(*np.nonzero(labels != IGNORED), strict=True)]
    assert len(each) < labels.size
    assert float(learnt(torch.tensor(LOGITS), labels)) == pytest.approx(np.mean(each), rel=1e-5)
    assert torch.autograd.gradcheck(lambda z: learnt(z, labels), leaf(LOGITS))


def test_pixels_that_do_not_count_pull_at_nothing() -> None:
    labels, logits = masks((3, 4)), leaf(LOGITS)
    learnt(logits, labels).backward()
    assert logits.grad is not None
    assert np.array_equal(logits.grad.abs().sum(1).numpy() > 0, labels != IGNORED)


def test_without_a_labelled_pixel_there_is_nothing_to_learn() -> None:
    labels = torch.full((2, 6, 8), IGNORED, dtype=torch.uint8)
    assert SegmentationTraining().label_loss(HEAD, [torch.tensor(LOGITS)], labels) is None


@pytest.mark.parametrize("stride", [2, 3])
def test_every_cell_is_compared_and_has_the_label_of_its_middle(stride: int) -> None:
    labels = masks((3 * stride, 4 * stride))
    found = SegmentationTraining().comparison(
        HEAD, [torch.tensor(LOGITS)], [torch.tensor(TEACHER)], torch.tensor(labels)
    )
    assert found is not None
    assert found.known is not None
    cells = list(np.ndindex(2, 3, 4))
    middle = [labels[n, int((y + 0.5) * stride), int((x + 0.5) * stride)] for n, y, x in cells]
    assert IGNORED in middle
    assert found.student.tolist() == [LOGITS[n, :, y, x].tolist() for n, y, x in cells]
    assert found.teacher.tolist() == [TEACHER[n, :, y, x].tolist() for n, y, x in cells]
    assert found.known.tolist() == [label != IGNORED for label in middle]
    guessed = [int(np.argmax(TEACHER[at[0], :, at[1], at[2]])) for at in cells]
    truth = [one if label == IGNORED else label for label, one in zip(middle, guessed, strict=True)]
    assert found.labels.tolist() == truth
    assert (found.rest, found.of) == (None, "classes")


@pytest.mark.parametrize("size", [(6, 8), (2, 2)], ids=["finer", "coarser"])
def test_a_teacher_of_another_stride_is_brought_to_the_students(size: tuple[int, int]) -> None:
    teacher, labels = (
        np.random.default_rng(4).normal(size=(2, 3, *size)),
        torch.full((2, 6, 8), IGNORED, dtype=torch.uint8),
    )
    found = SegmentationTraining().comparison(HEAD, [torch.tensor(LOGITS)], [torch.tensor(teacher)], labels)
    assert found is not None
    expected = resized(teacher, (3, 4)).transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_allclose(found.teacher.numpy(), expected, rtol=1e-5)
    assert found.labels.tolist() == expected.argmax(1).tolist()
