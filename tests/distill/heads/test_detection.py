"""What heat and boxes learn from."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.heads.detection import DetectionTraining, heat_targets
from edgekd.students.heads.detection import DetectionDecoder
from edgekd.tasks._protocol import HeadSpec

HEAD = HeadSpec(name="things", kind="detection", classes=2, objects=4)
LABELS = torch.tensor([[[1.0, 1, 5, 4, 1, 0], [0, 0, 0, 0, -1, 0]]])  # in cells; centre (3, 2.5)


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
