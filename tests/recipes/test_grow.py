from __future__ import annotations

import itertools

import pytest
import torch

from edgekd.distill.curve import read_curve
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch
from edgekd.recipes.grow import Grow
from edgekd.search.recipe import epochs_of, shortened
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.testing.contracts.stage import StageContract, StageLife
from edgekd.testing.fakes.bars import BarTask, OpenBarTeacher

QUICK = {"epochs": 2, "batch_size": 32, "precision": "float32"}
FAMILY = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 3]}, "stages": 2})


def student_of(*depths, seed=0):
    arch = Arch.of({"width1": 8, "width2": 16, "depth1": depths[0], "depth2": depths[1]})
    return new_student(FAMILY, arch, BarTask().spec, seed)


@pytest.fixture
def student():
    return student_of(1, 3)


@pytest.mark.slow
class TestGrow(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(Grow(**QUICK), Grow(**{**QUICK, "epochs": 3}), student, context)


def answers(student, images=None):
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) if images is None else images
    with torch.no_grad():
        return student.module(images)


@pytest.mark.parametrize(("before", "after"), [((1, 1), (2, 2)), ((1, 2), (1, 3)), ((1, 1), (3, 1))])
def test_grown_it_answers_as_before_and_every_new_weight_can_learn(before, after):
    small, fresh = student_of(*before), student_of(*after, seed=1)
    grown = fresh.but(module=FAMILY.transfer_weights(small.module, small.arch, fresh.module, fresh.arch))
    assert torch.equal(answers(grown), answers(small))
    assert not torch.equal(answers(fresh), answers(small))
    optimizer = torch.optim.SGD(grown.module.parameters(), lr=0.1)
    for _ in range(2):  # a silent block's scale moves first, and then what is before it
        optimizer.zero_grad()
        grown.module.train()(torch.rand(8, 1, 8, 8)).logsumexp(1).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in grown.module.named_parameters() if "conv" in n)


@pytest.mark.slow
def test_other_families_grow_too(context, tmp_path):
    options = {"space": {"width": 8, "depth": [1, 2], "expansion": 2}, "stages": 2}
    family = MobileNet.model_validate(options)
    spec = BarTask().spec
    deep = new_student(family, family.space(spec).at(family.space(spec).size - 1), spec, 0)
    given = context(tmp_path, teacher=OpenBarTeacher())
    assert not Grow(**QUICK).check(deep, given)
    grown = Grow(**QUICK).run(deep, given)
    assert grown.module.state_dict().keys() == deep.module.state_dict().keys()
    assert not torch.equal(answers(grown), answers(deep))


def test_cut_down_it_keeps_what_both_have(student):
    small = student_of(1, 1, seed=1)
    cut = FAMILY.transfer_weights(student.module, student.arch, small.module, small.arch)
    own = student.module.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in cut.state_dict().items())


@pytest.mark.slow
def test_each_step_has_a_block_more_and_goes_on_from_the_one_before(student, context, tmp_path, monkeypatch):
    seen, run = [], Distill.run

    def noted(self, given, at):
        result = run(self, given, at)
        if type(self) is Distill:
            seen.append((given, result))
        return result

    monkeypatch.setattr(Distill, "run", noted)
    reported = []
    grown = Grow(**QUICK).run(student, context(tmp_path, progress=reported.append))
    assert [given.arch["depth2"] for given, _ in seen] == [1, 2, 3]
    for (_, one), (two, _) in itertools.pairwise(seen):
        assert torch.equal(answers(one), answers(two))
    assert grown.arch == student.arch
    assert grown.module.state_dict().keys() == student.module.state_dict().keys()
    assert [point.epoch for point in read_curve(tmp_path / "stage")] == list(range(6))
    assert (reported[-1].stage, reported[-1].done, reported[-1].total) == (
        "grow",
        reported[-1].total,
        reported[-1].total,
    )


@pytest.mark.slow
def test_a_flat_student_is_trained_once(context, tmp_path):
    flat = student_of(1, 1)
    grown = Grow(**QUICK).run(flat, context(tmp_path))
    assert torch.equal(answers(grown), answers(Distill(**QUICK).run(flat, context(tmp_path / "plain"))))


def test_a_point_that_comes_later_is_reported_before_training(context, tmp_path):
    given = context(tmp_path, teacher=OpenBarTeacher())
    stage = Grow(**QUICK, loss={"fitnet": {"points": [["blocks.3", "blocks.0"]]}})
    (problem, *_) = stage.check(student_of(1, 3), given)
    assert problem.message.startswith("grow: ")
    with pytest.raises(ConfigurationError, match=r"no point of the student `blocks\.3`"):
        stage.run(student_of(1, 3), given)


def test_a_search_reckons_and_ranks_with_it():
    stage = Grow(epochs=8)
    assert epochs_of([stage]) == 24
    (short,) = shortened([stage], 4)
    assert (type(short), short.epochs) == (Distill, 4)
