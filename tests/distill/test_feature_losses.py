"""Losses on inner activations in the recipe: placed, trained along, resumed, gone at the end, or refused before."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from edgekd.distill.checkpoint import CHECKPOINT_FILE, Position, read_checkpoint
from edgekd.distill.curve import read_curve
from edgekd.distill.loop import _pulled
from edgekd.distill.stage import Distill
from edgekd.errors import Interrupted
from edgekd.store.records import CurvePoint
from edgekd.students.points import layout_of
from edgekd.students.student import load_student, save_student
from edgekd.tasks._protocol import InputSpec
from edgekd.teachers.cache import TeacherCache
from edgekd.testing.fakes.bars import BarTeacher, OpenBarTeacher

QUICK = {"epochs": 4, "batch_size": 32, "precision": "float32"}
FITNET = {"fitnet": {"weight": 2.0}, "kd": {}}


@pytest.fixture
def teacher():
    return OpenBarTeacher()


def weights(student):
    return {name: tensor.clone() for name, tensor in student.module.state_dict().items()}


def test_stages_of_a_network_are_found(student, teacher):
    own, other = (
        layout_of(student.module, InputSpec(shape=(1, 8, 8))),
        layout_of(teacher.network(), InputSpec(shape=(1, 8, 8))),
    )
    assert [(point.name, point.shape) for point in own.stages] == [("blocks.0", (8, 8, 8)), ("blocks.1", (8, 4, 4))]
    assert [point.shape for point in other.stages] == [(12, 8, 8), (20, 4, 4)]
    assert own.at("penultimate").shape == (8,)
    assert own.classifier == "head"


@pytest.mark.slow
@pytest.mark.parametrize("cache", [True, False])
def test_the_teacher_is_asked_once_for_logits_and_activations(student, context, teacher, task, tmp_path, cache):
    given = context(tmp_path)
    teacher.images = 0
    trained = Distill(**QUICK, loss=FITNET, views=2, cache=cache).run(student, given)
    if cache:  # two more: its shape was looked at before training and in training
        assert 2 * 90 <= teacher.images <= 2 * 90 + 4
    assert weights(trained).keys() == weights(student).keys()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in trained.module.modules())
    save_student(trained, tmp_path / "saved")
    again = load_student(tmp_path / "saved")
    inputs = torch.randn(4, 1, 8, 8)
    assert torch.equal(again.module(inputs), trained.module(inputs))


@pytest.mark.parametrize("cache", [True, False])
def test_no_gradient_reaches_the_teacher(student, context, teacher, tmp_path, monkeypatch, cache):
    """Losses on activations rely on it: what they are handed of a teacher carries none."""
    from edgekd.distill.objective import Objective

    teacher.network().requires_grad_(True)
    given, forward = [], Objective.forward

    def watched(self, outputs, taught, student_seen, teacher_seen, *others):
        given.extend([taught, *teacher_seen.values()])
        return forward(self, outputs, taught, student_seen, teacher_seen, *others)

    monkeypatch.setattr(Objective, "forward", watched)
    Distill(**QUICK, loss={"attention": {}, "kd": {}}, views=1, cache=cache).run(student, context(tmp_path))
    assert len(given) == 4 * 3 * 3  # epochs, steps; logits and two stages
    assert not any(tensor.requires_grad for tensor in given)
    assert all(weight.grad is None for weight in teacher.network().parameters())


def test_connectors_are_trained_along(student, context, tmp_path):
    stage, given = Distill(**QUICK, loss=FITNET), context(tmp_path)
    first = stage._objective(student.module, stage._networks(student, given), given)
    stopping = iter([False] * 9)
    stage.prepare(given)
    with pytest.raises(Interrupted):
        stage.run(student, replace(given, stop=lambda: next(stopping, True)))
    plan = stage._plan(student, given).digest
    _, tensors = read_checkpoint(given.folder / CHECKPOINT_FILE, plan, Position[CurvePoint])
    begun = dict(first.named_parameters())
    assert len(begun) > 0
    assert all(not torch.equal(tensors[f"state.objective.value.{name}"], tensor) for name, tensor in begun.items())


def test_preparing_answers_every_point_a_student_may_need(student, context, teacher, task, tmp_path):
    stage, given = Distill(**QUICK, loss=FITNET, views=2), context(tmp_path)
    stage.prepare(given)
    teacher.images = 0
    stage.run(student, given)
    assert teacher.images < 10  # only looked at for its shape


def test_activations_are_cached_as_float16_beside_the_logits(student, context, task, teacher, tmp_path):
    given = context(tmp_path)
    Distill(**QUICK, loss=FITNET, views=1).run(student, given)
    sizes = sorted(path.stat().st_size for path in given.cache.glob("*.f16"))
    assert sizes == [90 * 20 * 16 * 2, 90 * 12 * 64 * 2]
    assert [path.stat().st_size for path in given.cache.glob("*.f32")] == [90 * 3 * 4]
    assert TeacherCache(given.cache).cost(teacher, task.split("train"), None, [0]).images == 90  # another view


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ({"fitnet": {"points": [["blocks.0", "blocks.7"]]}}, "blocks.7"),
        ({"fitnet": {"points": [["blocks.0", "head"]]}}, "a map can't be compared with a vector"),
    ],
)
def test_points_that_do_not_fit_are_refused_before_training(student, context, tmp_path, loss, reason):
    problems = Distill(**QUICK, loss=loss).check(student, context(tmp_path))
    assert len(problems) == 1
    assert reason in problems[0].message


def test_a_teacher_of_logits_alone_is_refused(student, context, tmp_path):
    problems = Distill(**QUICK, loss=FITNET).check(student, context(tmp_path, teacher=BarTeacher()))
    assert [problem.message for problem in problems] == [
        "distill: fitnet needs the teacher's features, and `bar` provides only logits"
    ]


@pytest.mark.slow
def test_a_weight_that_changes_moves_with_the_epochs(student, context, tmp_path):
    ramp = {"weight": {"from": 0.0, "to": 1.0, "start": 0.0, "end": 0.5}}
    stage = Distill(**QUICK, loss={"fitnet": ramp, "kd": {"temperature": {"from": 8, "to": 2}}})
    given = context(tmp_path)
    objective = stage._objective(student.module, stage._networks(student, given), given)
    assert objective._weights == [0.0]
    objective.move_to(1.0)
    assert objective._weights == [1.0]
    assert dict(objective._now.parts)["kd"].temperature == 2
    plain = Distill(**QUICK, loss={"fitnet": {"weight": 0.0}, "kd": {"temperature": 8}})
    assert stage.run(student, context(tmp_path / "a")).module is not None
    assert plain.loss.features == ()


def test_each_term_says_how_hard_it_pulls(student, context, tmp_path):
    loss = {"kd": {"weight": 0.5}, "fitnet": {"weight": 2.0}}
    Distill(**QUICK, loss=loss).run(student, context(tmp_path))
    curve = read_curve(tmp_path / "stage")
    assert all(set(point.shares) == {"ce", "kd", "fitnet"} for point in curve)
    assert all(sum(point.shares.values()) == pytest.approx(1.0) for point in curve)
    assert all(share > 0 for point in curve for share in point.shares.values())


@pytest.mark.slow
def test_a_share_is_the_length_of_a_terms_own_gradient(student, context, tmp_path):
    """One step: the shares reported are those of gradients taken one term at a time."""
    stage = Distill(epochs=1, batch_size=90, precision="float32", loss={"kd": {"weight": 0.25}}, augment={"crop": 0})
    stage.run(student, context(tmp_path, teacher=BarTeacher()))
    (point,) = read_curve(tmp_path / "stage")
    split, norms = context(tmp_path).task.split("train"), {}
    inputs = (torch.from_numpy(split.inputs).float() - 60) / 60
    taught = BarTeacher().logits(torch.from_numpy(split.inputs).float())
    for name, loss in stage.loss.parts:
        module = copy.deepcopy(student.module).train().requires_grad_(True)
        (loss(module(inputs), taught, torch.from_numpy(split.labels)) * loss.weight).backward()
        norms[name] = torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
    for name, norm in norms.items():
        assert point.shares[name] == pytest.approx(norm / sum(norms.values()), rel=1e-3)


def test_a_term_that_reaches_no_weight_pulls_with_nothing():
    weight, other = (torch.ones(1, requires_grad=True) for _ in range(2))
    assert _pulled(torch.ones(()), [weight], {id(weight)}) == _pulled(other.sum(), [weight], {id(weight)}) == 0.0
    assert _pulled(3 * weight.sum(), [weight], {id(weight)}) == 3.0


def test_terms_taken_apart_leave_the_gradient_of_their_sum():
    weight, connector = (torch.tensor([2.0], requires_grad=True) for _ in range(2))
    terms = (weight * connector).sum(), weight.square().sum()
    assert [_pulled(term, [weight, connector], {id(weight)}) for term in terms] == [2.0, 4.0]
    assert (float(weight.grad), float(connector.grad)) == (6.0, 2.0)


def test_terms_taken_apart_leave_gradients_laid_out_as_their_weights():
    """A fused optimizer walks through memory: other strides would put a gradient on the wrong weights."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    whole, apart = torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(3, 5, 3)
    apart.load_state_dict(whole.state_dict())
    for layer in (whole, apart):
        terms = [layer(images).square().mean(), layer(images).mean()]
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
        if layer is whole:
            torch.stack(terms).sum().backward()
        else:
            for term in terms:
                _pulled(term, list(layer.parameters()), set())
        optimizer.step()
    torch.testing.assert_close(apart.weight, whole.weight)


def test_frozen_parts_stay_and_their_statistics_with_them(student, context, tmp_path):
    trained = Distill(**QUICK, freeze=["stem", "blocks.0"]).run(student, context(tmp_path))
    before, after = weights(student), weights(trained)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith(("stem.", "blocks.0."))} <= same
    assert not any(name.startswith(("head.", "blocks.1.conv")) for name in same)


@pytest.mark.parametrize(
    ("freeze", "reason"), [(["stm"], "did you mean `stem`"), (["stem", "blocks", "head"], "leave one out")]
)
def test_freezing_nothing_known_or_everything_is_refused(student, context, tmp_path, freeze, reason):
    (problem,) = Distill(**QUICK, freeze=freeze).check(student, context(tmp_path))
    assert reason in problem.remedy


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["fitnet", "attention"])
def test_a_loss_that_looks_at_frozen_parts_alone_is_refused(student, context, tmp_path, loss):
    def stage(points):
        return Distill(**QUICK, freeze=["stem", "blocks.0"], loss={loss: {"points": points}})

    (problem,) = stage([["blocks.0", "blocks.0"]]).check(student, context(tmp_path))
    assert problem.message == f"distill: {loss} compares blocks.0, and all layers before are frozen"
    assert stage("each stage").run(student, context(tmp_path)).module is not None  # the last stage still learns


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss": [{"simkd": {}}, {"simkd": {"weight": 2}}]}, "written twice"),
        ({"loss": "simkd", "freeze": ["head"]}, "the student's `head`, which is frozen"),
    ],
)
def test_one_classifier_is_reused_once_and_not_where_it_is_frozen(student, context, tmp_path, options, reason):
    (problem,) = Distill(**QUICK, **options).check(student, context(tmp_path))
    assert reason in problem.message
    assert problem.message.startswith("distill: simkd")


@pytest.mark.slow
def test_a_projector_learns_behind_frozen_blocks(student, context, tmp_path):
    trained = Distill(**QUICK, loss="simkd", freeze=["stem", "blocks"]).run(student, context(tmp_path))
    moved = {name for name, tensor in weights(student).items() if not torch.equal(weights(trained)[name], tensor)}
    assert moved == {"head.weight", "head.bias"}


def test_a_loss_that_needs_one_label_refuses_mixed_samples(student, context, tmp_path):
    (problem,) = Distill(**QUICK, loss={"dkd": {}}, augment={"mixup": 0.2}).check(student, context(tmp_path))
    assert problem.message == "distill: dkd needs one label a sample, and augment mixes samples"
    assert not Distill(**QUICK, augment={"mixup": 0.2}).check(student, context(tmp_path))
