"""What heat and boxes learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.distill.heads.detection import DetectionTraining, heat_targets
from edgekd.students.heads.detection import DetectionDecoder
from edgekd.tasks._protocol import HeadSpec

HEAD = HeadSpec(name="things", kind="detection", classes=2, objects=4)
LABELS = torch.tensor([[[1.0, 1, 5, 4, 1, 0], [0, 0, 0, 0, -1, 0]]])  # in cells; centre (3, 2.5)
RNG = np.random.default_rng(0)
CLASSES, HEIGHT, WIDTH = 2, 14, 16
NO_OBJECT = [0.0, 0, 0, 0, -1, 0]
# two of one class and one of another; a crowd with a small and a large one in it, and a small one; nothing; unknown
SCENES = torch.tensor(
    [
        [[1.2, 0.7, 12.9, 11.8, 1, 0], [3.4, 2.2, 15.6, 13.1, 1, 0], [0.3, 1.1, 10.9, 11.4, 0, 0], NO_OBJECT],
        [[0, 0, 7.5, 7.5, 0, 1], [4.1, 4.6, 5.3, 5.2, 0, 0], [0.5, 0.2, 13, 12.6, 1, 0], [12.1, 11, 13.5, 12.2, 0, 0]],
        [NO_OBJECT] * 4,
        [[0.0, 0, 0, 0, -2, 0]] * 4,
    ]
)
OBJECTS = 6  # that count
HEAT = RNG.normal(-1, 1, (4, CLASSES, HEIGHT, WIDTH))
BOX = np.concatenate([RNG.normal(0, 3, (4, 2, HEIGHT, WIDTH)), RNG.uniform(0.5, 14, (4, 2, HEIGHT, WIDTH))], 1)
Array = NDArray[np.float64]


def leaf(values: Array) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def bells(scene: Array) -> list[tuple[Array, int, Array]]:
    """Box, class and heat (h, w) of each object that counts: a bell around its cell, as wide as the object."""
    found = []
    for x1, y1, x2, y2, kind, passed_over in scene:
        if kind >= 0 and not passed_over:
            column, row = int((x1 + x2) / 2), int((y1 + y2) / 2)
            across, down = (
                np.exp(-((np.arange(cells) - middle) ** 2) / (2 * max(0.54 * side / 6, 0.3) ** 2))
                for cells, middle, side in ((WIDTH, column, x2 - x1), (HEIGHT, row, y2 - y1))
            )
            found.append((np.asarray([x1, y1, x2, y2]), int(kind), np.outer(down, across)))
    return found


def in_crowd(scene: Array, row: int, column: int) -> bool:
    return any(
        x1 < column + 1 and column < x2 and y1 < row + 1 and row < y2
        for x1, y1, x2, y2, kind, passed_over in scene
        if kind >= 0 and passed_over
    )


def focal(heat: Array) -> float:
    """Equation 1 of Zhou et al., alpha 2 and beta 4, summed over the scenes somebody looked at."""
    total = 0.0
    for scene, logits in zip(SCENES.double().numpy()[:3], heat[:3], strict=True):
        for kind, row, column in np.ndindex(CLASSES, HEIGHT, WIDTH):
            y = max([bell[row, column] for _, of, bell in bells(scene) if of == kind], default=0.0)
            p = 1 / (1 + np.exp(-logits[kind, row, column]))
            if y == 1:
                total -= (1 - p) ** 2 * np.log(p)
            elif y >= 0.5 or not in_crowd(scene, row, column):
                total -= (1 - y) ** 4 * p**2 * np.log(1 - p)
    return total


def giou(a: Array, b: Array) -> float:
    """Algorithm 1 of Rezatofighi et al."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return float(shared / union - (hull - union) / hull)


def hottest(scene: Array, row: int, column: int) -> tuple[float, tuple[float, ...]]:
    """How hot a cell is at most, and the box of that object."""
    return max((float(bell[row, column]), tuple(box.tolist())) for box, _, bell in bells(scene))


def box_terms(box: Array) -> list[tuple[float, float]]:
    """What each cell's box is worth, and its GIoU with the object that is hottest there."""
    terms = []
    for scene, predicted in zip(SCENES.double().numpy()[:2], box[:2], strict=True):
        for row, column in np.ndindex(HEIGHT, WIDTH):
            worth, wanted = hottest(scene, row, column)
            if worth >= 0.5:
                x, y, w, h = predicted[:, row, column] + [column, row, 0, 0]
                own = np.asarray([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                terms.append((worth, giou(own, np.asarray(wanted))))
    return terms


def sure_heat() -> Array:
    """Of which nothing is left to learn."""
    heat = np.full_like(HEAT, -40.0)
    for at, scene in enumerate(SCENES.double().numpy()):
        for _, kind, bell in bells(scene):
            heat[at, kind][bell == 1] = 40.0
    return heat


def sure_box() -> Array:
    """Of which nothing is left to learn: in each cell the object that is hottest there."""
    box = BOX.copy()
    for at, scene in enumerate(SCENES.double().numpy()[:2]):
        for row, column in np.ndindex(HEIGHT, WIDTH):
            _, (x1, y1, x2, y2) = hottest(scene, row, column)
            box[at, :, row, column] = (x1 + x2) / 2 - column, (y1 + y2) / 2 - row, x2 - x1, y2 - y1
    return box


def learnt(heat: torch.Tensor, box: torch.Tensor, labels: torch.Tensor = SCENES) -> torch.Tensor:
    found = DetectionTraining().label_loss(HEAD, (heat, box), labels)
    assert found is not None
    return found


def perfect() -> tuple[torch.Tensor, torch.Tensor]:
    heat, box = torch.full((1, 2, 8, 8), -15.0), torch.full((1, 4, 8, 8), 0.5)
    heat[0, 1, 2, 3] = 15.0
    grid_y, grid_x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    box[0] = torch.stack([3 - grid_x, 2.5 - grid_y, torch.full((8, 8), 4.0), torch.full((8, 8), 3.0)])
    return heat, box


def test_targets_are_hottest_at_the_centre() -> None:
    heat, boxes, worth = heat_targets(LABELS, 2, (8, 8))
    assert heat[0, 1, 2, 3] == 1
    assert heat[0, 0].max() == 0
    assert heat[0, 1, 2, 4] < 1
    assert boxes[0, :, 2, 3].tolist() == [1, 1, 5, 4]
    assert worth[0, 2, 3] == 1
    assert worth[0, 7, 7] == 0


def test_a_perfect_answer_costs_nothing_and_decodes_to_the_box() -> None:
    heat, box = perfect()
    loss = DetectionTraining().label_loss(HEAD, (heat, box), LABELS)
    assert loss is not None
    assert float(loss) == pytest.approx(0.0, abs=1e-4)
    boxes, _, kinds = DetectionDecoder(HEAD, (8, 8))(heat, box)
    assert boxes[0, 0].tolist() == pytest.approx([1, 1, 5, 4])
    assert kinds[0, 0] == 1
    worse = DetectionTraining().label_loss(HEAD, (heat, box + 0.5), LABELS)
    assert worse is not None
    assert float(worse) > 0.1


def test_nobody_looked_and_nothing_there_are_two_things() -> None:
    heat, box = perfect()
    unknown, empty = LABELS.clone(), LABELS.clone()
    unknown[:, :, 4], empty[:, :, 4] = -2, -1
    assert DetectionTraining().label_loss(HEAD, (heat, box), unknown) is None
    wrong = DetectionTraining().label_loss(HEAD, (heat, box), empty)
    assert wrong is not None
    assert float(wrong) > 1


def test_what_is_passed_over_costs_nothing_either_way() -> None:
    heat, box = perfect()
    crowd = LABELS.clone()
    crowd[0, 0, 5] = 1
    seen = DetectionTraining().label_loss(HEAD, (heat, box), crowd)
    unseen = DetectionTraining().label_loss(HEAD, (torch.full_like(heat, -15.0), box), crowd)
    assert seen is not None
    assert unseen is not None
    assert float(seen) == pytest.approx(0, abs=1e-4)
    assert float(unseen) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_no_other_row_makes_a_crowd_count(order: list[int]) -> None:
    rows = torch.tensor([[0.0, 0, 8, 8, 1, 1], [3, 3, 5, 5, 1, 0], [0, 0, 0, 0, -1, 0]])  # crowd, object, no object
    heat, _, _ = heat_targets(rows[order][None], 2, (8, 8))
    assert heat[0, 1, 4, 4] == 1
    assert heat[0, 0].max() == -1
    assert heat[0, 1, 0].max() == -1


def test_comparison_is_of_cells_where_somebody_sees_something() -> None:
    heat, box = perfect()
    found = DetectionTraining().comparison(HEAD, (torch.full_like(heat, -15.0), box), (heat, box + 1), LABELS)
    assert found is not None
    assert (found.student.tolist(), found.teacher.tolist(), found.of) == ([[-15.0]], [[15.0]], "labels")
    assert found.rest is not None
    assert float(found.rest) == pytest.approx(4.0)


def test_heat_learns_by_the_papers_focal_loss() -> None:
    found = learnt(torch.tensor(HEAT), torch.tensor(sure_box()))
    assert float(found) == pytest.approx(focal(HEAT) / OBJECTS, rel=1e-5)


def test_boxes_learn_by_generalised_iou_around_centres() -> None:
    terms = box_terms(BOX)
    assert min(overlap for _, overlap in terms) < 0 < 0.5 < max(overlap for _, overlap in terms)
    assert len(terms) > OBJECTS, "cells beside the centres learn too"
    expected = 2 * sum(worth * (1 - overlap) for worth, overlap in terms) / OBJECTS
    assert float(learnt(torch.tensor(sure_heat()), torch.tensor(BOX))) == pytest.approx(expected, rel=1e-5)


def test_heat_and_boxes_add_up_and_have_the_gradients_of_their_formulas() -> None:
    boxes = 2 * sum(worth * (1 - overlap) for worth, overlap in box_terms(BOX))
    found = learnt(torch.tensor(HEAT), torch.tensor(BOX))
    assert float(found) == pytest.approx((focal(HEAT) + boxes) / OBJECTS, rel=1e-5)
    assert torch.autograd.gradcheck(learnt, (leaf(HEAT), leaf(BOX)), fast_mode=True)


def test_without_an_object_the_heat_is_divided_by_one() -> None:
    p = 1 / (1 + np.exp(-HEAT[2]))
    found = learnt(torch.tensor(HEAT[2:3]), torch.tensor(BOX[2:3]), SCENES[2:3])
    assert float(found) == pytest.approx(-(p**2 * np.log(1 - p)).sum(), rel=1e-5)


@pytest.mark.parametrize("sides", [(-3.0, -3.0), (-3.0, 3.0), (3.0, -3.0)])
def test_a_box_turned_inside_out_overlaps_nothing(sides: tuple[float, float]) -> None:
    heat, box = perfect()
    box[0, 2], box[0, 3] = sides
    # of no area, inside the object or just as high as it: its hull is the object, and the centre alone is worth a box
    assert float(learnt(heat, box, LABELS)) == pytest.approx(2.0, rel=1e-5)


def test_boxes_are_like_a_sure_teachers() -> None:
    rng = np.random.default_rng(1)
    own, sure = rng.normal(size=(2, 2, 3, 4)), rng.normal(-3, 2, (2, 2, 3, 4))
    box, boxes = rng.normal(size=(2, 2, 4, 3, 4))

    def rest(own: torch.Tensor, box: torch.Tensor, sure: Array = sure) -> torch.Tensor:
        found = DetectionTraining().comparison(HEAD, (own, box), (torch.tensor(sure), torch.tensor(boxes)), SCENES[:2])
        assert found is not None
        assert found.rest is not None
        return found.rest

    likely = (1 / (1 + np.exp(-sure))).max(1)
    worth = np.where(likely > 0.05, likely, 0)
    assert (worth == 0).any()
    assert worth.sum() > 1
    distance = np.abs(box - boxes).sum(1)
    expected = (distance * worth).sum() / worth.sum()
    assert float(rest(torch.tensor(own), torch.tensor(box))) == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.gradcheck(lambda z: rest(torch.tensor(own), z), leaf(box))
    # a lone guess is not worth as much as what it is sure of
    guess = np.full_like(sure, -9.0)
    guess[0, 1, 2, 3] = -1.0
    expected = distance[0, 2, 3] / (1 + np.exp(1))
    assert float(rest(torch.tensor(own), torch.tensor(box), guess)) == pytest.approx(expected, rel=1e-5)
    assert float(rest(torch.tensor(own), torch.tensor(box), np.full_like(sure, -9.0))) == 0


def test_heat_is_compared_where_either_sees_something() -> None:
    own, sure = np.random.default_rng(2).normal(-3, 2, (2, 2, 2, 3, 4))
    box = torch.zeros((2, 4, 3, 4), dtype=torch.float64)
    found = DetectionTraining().comparison(HEAD, (torch.tensor(own), box), (torch.tensor(sure), box), SCENES[:2])
    assert found is not None
    threshold = np.log(0.05 / 0.95)
    where = [at for at in np.ndindex(own.shape) if own[at] > threshold or sure[at] > threshold]
    assert len(where) < own.size
    assert found.student.tolist() == [[own[at]] for at in where]
    assert found.teacher.tolist() == [[sure[at]] for at in where]
    assert found.labels.tolist() == [[int(sure[at] > 0)] for at in where]
