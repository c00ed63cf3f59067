from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.checkpoint import CHECKPOINT_FILE
from edgekd.distill.curve import read_curve
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Diverged, Interrupted
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.records import digest_json
from edgekd.tasks._protocol import Split
from edgekd.testing.contracts.stage import StageContract, StageLife
from edgekd.testing.fakes.bars import OpenBarTeacher

pytestmark = pytest.mark.slow  # trains networks

QUICK = {"epochs": 4, "batch_size": 32, "precision": "float32"}
AUGMENTS = {
    "default": {},
    "flip": {"crop": 0, "flip": True},
    "randaugment": {"crop": 0, "randaugment": True},
    "mixup": {"crop": 0, "mixup": 1.0},
    "cutmix": {"crop": 0, "cutmix": 1.0},
    "mixup or cutmix of flipped": {"crop": 0, "flip": True, "mixup": 1.0, "cutmix": 1.0},
    "rotate and colour": {"crop": 0, "rotate": 30, "colour": {"brightness": 0.4, "contrast": 0.4}},
    "erase": {"crop": 0, "erase": 0.5},
}


class TestDistill(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(Distill(**QUICK), Distill(**{**QUICK, "epochs": 5}), student, context)


def weights(student):
    return {name: tensor.clone() for name, tensor in student.module.state_dict().items()}


def test_learns_from_a_teacher_who_is_asked_once_a_view(student, context, teacher, task, tmp_path):
    stage = Distill(epochs=10, batch_size=16, learning_rate=0.1, precision="float32", views=3)
    trained = stage.run(student, context(tmp_path))
    validation = task.split("validation")
    assert task.score(predict(trained.module, validation.inputs, task.spec), validation.labels).value > 0.9
    assert teacher.images == 3 * 90
    curve = read_curve(tmp_path / "stage")
    assert [point.epoch for point in curve] == list(range(10))
    assert curve[-1].validation > 0.9
    assert curve[-1].loss < curve[0].loss
    assert not trained.module.training


def test_learns_from_labels_alone(student, context, task, tmp_path):
    stage = Distill(loss="ce", epochs=10, batch_size=16, learning_rate=0.1, precision="float32", label_smoothing=0.1)
    trained = stage.run(student, context(tmp_path, teacher=None))
    validation = task.split("validation")
    assert task.score(predict(trained.module, validation.inputs, task.spec), validation.labels).value > 0.9


def test_a_resumed_training_asks_its_teacher_in_the_same_way(student, context, tmp_path, monkeypatch):
    """Another layout or precision rounds otherwise, and whichever was the fastest may not be the next time."""
    from edgekd.distill import teacher_source

    stage = Distill(**QUICK, cache=False)

    def choosing(place):
        monkeypatch.setattr(teacher_source, "fastest", lambda options, step: options[place])

    choosing(0)
    whole = stage.run(student, context(tmp_path / "whole", teacher=OpenBarTeacher()))
    parts, countdown = context(tmp_path / "parts", teacher=OpenBarTeacher()), iter([False] * 4)
    with pytest.raises(Interrupted):
        stage.run(student, replace(parts, stop=lambda: next(countdown, True)))
    choosing(-1)
    resumed = stage.run(student, parts)
    assert all(torch.equal(weights(resumed)[name], tensor) for name, tensor in weights(whole).items())
    (parts.folder / "asked.json").write_text("torn")
    assert stage.run(student, parts).module is not None  # it is only tried again


def test_inherited_weights_are_recovered_at_a_small_rate_without_a_warm_up(student, context, tmp_path):
    inherited, where = student.but(family="pruned"), context(tmp_path)
    stage = Distill(batch_size=128, epochs=10)
    fresh, own = stage._plan(student, where), stage._plan(inherited, where)
    assert (fresh.learning_rate, fresh.warmup_epochs, fresh.keep_best) == (0.1, 1.0, False)
    assert (own.learning_rate, own.warmup_epochs, own.keep_best) == (0.01, 0.0, True)
    assert not own.keeps_start
    whole = replace(where, keeps_start=True)
    assert Distill()._plan(inherited, whole).keeps_start
    assert not Distill()._plan(inherited, whole, recovers=True).keeps_start, "rounding has to be trained for"
    block = Distill.model_validate({"loss": {"fitnet": {}, "ce": {"weight": 0}}})
    assert not block._plan(inherited, where).keep_best  # whose answers are not what it trains
    written = Distill(learning_rate=0.05, warmup_epochs=2)._plan(inherited, where)
    assert (written.learning_rate, written.warmup_epochs, written.keep_best) == (0.05, 2.0, True)


@pytest.mark.parametrize(("epochs", "warm"), [(4, 1.0), (30, 3.0), (400, 20 / 6)])
def test_few_images_are_warmed_up_by_steps(student, context, tmp_path, epochs, warm):
    plan = Distill(epochs=epochs)._plan(student, context(tmp_path))  # 90 images, 6 steps an epoch
    assert plan.batch_size == 16
    assert plan.warmup_epochs == pytest.approx(warm)


@pytest.mark.parametrize(("family", "epochs"), [("pruned", 1), ("mine", 3)])
def test_recovery_ends_where_time_is_up(student, context, tmp_path, family, epochs):
    stage, where = Distill(**{**QUICK, "epochs": 3}), context(tmp_path)
    stage.run(student.but(family=family), replace(where, late=lambda: True))
    assert len(read_curve(where.folder)) == epochs


@pytest.mark.parametrize("damage", ["torn", "foreign", "other-plan"])
def test_a_checkpoint_that_cannot_be_used_is_not(student, context, tmp_path, damage):
    stage = Distill(**QUICK)
    whole = stage.run(student, context(tmp_path))
    path = tmp_path / "stage" / CHECKPOINT_FILE
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        path.write_bytes(b"something else")
    else:
        Distill(**{**QUICK, "learning_rate": 0.01}).run(student, context(tmp_path))
    again = stage.run(student, context(tmp_path))
    assert all(torch.equal(weights(again)[name], tensor) for name, tensor in weights(whole).items())


def test_a_training_that_diverges_says_what_to_do(student, context, tmp_path):
    with pytest.raises(Diverged, match=r"lower learning_rate \(it is 1e\+30\)"):
        Distill(**{**QUICK, "learning_rate": 1e30}).run(student, context(tmp_path))


@pytest.mark.parametrize("cache", [True, False])
def test_a_teacher_of_no_numbers_is_named(student, context, teacher, tmp_path, cache):
    teacher.logits = lambda batch: torch.full((len(batch), 3), float("nan"))
    with pytest.raises((Diverged, ConfigurationError), match="check its weights"):
        Distill(**QUICK, cache=cache).run(student, context(tmp_path))


def test_every_reason_not_to_run_is_found(student, context, tmp_path):
    quantized = student.but(annotations=Annotations(precision=Precision.INT8))
    stage = Distill.model_validate({"augment": {"crop": 8, "flip": True}})
    found = "\n".join(problem.message for problem in stage.check(quantized, context(tmp_path, teacher=None)))
    for words in ("needs a teacher", "already int8", "augment.crop: 8", "augment.flip"):
        assert words in found
    with pytest.raises(ConfigurationError, match="needs a teacher"):
        stage.run(student, context(tmp_path, teacher=None))


def test_without_training_images_it_is_refused(student, context, task, tmp_path, monkeypatch):
    whole, train = task.split, task.split("train")
    nothing = replace(train, inputs=train.inputs[:0], labels=train.labels[:0])
    monkeypatch.setattr(task, "split", lambda name: nothing if name == "train" else whole(name))
    (problem,) = Distill(loss="ce").check(student, context(tmp_path))
    assert problem.message == "distill: task `bars` has no training samples"
    assert "data-free" in problem.remedy


def test_classes_must_agree(student, context, teacher, tmp_path):
    teacher.classes = 7
    (problem,) = Distill().check(student, context(tmp_path))
    assert "7 classes" in problem.message
    assert list(Distill(loss="ce").check(student, context(tmp_path))) == []


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1, "loss": {"kd": {"weight": 1}}},
        {"label_smoothing": 0.1, "loss": {"ce": {"label_smoothing": 0.2}}},
        {"label_smoothing": 0.1, "loss": {"ce": {"label_smoothing": {"from": 0, "to": 0.1}}}},
        {"label_smoothing": 0.1, "loss": [{"ce": {"weight": 1}}, {"ce": {"weight": 1, "label_smoothing": 0.2}}]},
        {"epoch": 3},
        {"momentum": 1.0},
    ],
)
def test_options_that_contradict(options):
    with pytest.raises(ValidationError):
        Distill.model_validate(options)


@pytest.mark.parametrize(
    "loss", ["kd", [{"fitnet": {}}, {"fitnet": {"points": "logits"}}], {"ce": {"weight": {"from": 1, "to": 0.5}}}]
)
def test_labels_are_smoothed_in_one_place_or_the_other(loss):
    stage = Distill.model_validate({"label_smoothing": 0.1, "loss": loss})
    before, after = stage.loss.parts, stage._smoothed().parts
    assert dict(after)["ce"].label_smoothing == 0.1
    assert dict(before)["ce"] == dict(after)["ce"].but(label_smoothing=0.0)
    assert [part for part in after if part[0] != "ce"] == [part for part in before if part[0] != "ce"]


@pytest.mark.parametrize(("images", "size"), [(100, 16), (624, 16), (1167, 32), (2560, 128), (50_000, 128)])
def test_few_images_are_trained_on_in_small_batches(images, size):
    assert Distill().batch_size_for(images) == size
    assert Distill().steps(images) >= min(20, images // 16)
    assert Distill(batch_size=48).batch_size_for(images) == 48


@pytest.mark.parametrize(("batch_size", "rate"), [(128, 0.1), (32, 0.025), (None, 0.0125)])
def test_the_default_rate_goes_with_the_batch(batch_size, rate, student, context, tmp_path):
    assert Distill(batch_size=batch_size)._plan(student, context(tmp_path)).learning_rate == pytest.approx(rate)
    assert Distill(batch_size=batch_size, learning_rate=0.3)._plan(student, context(tmp_path)).learning_rate == 0.3


def test_options_survive_json_and_tell_keys_apart():
    stage = Distill.model_validate({"loss": {"kd": {"temperature": 2}}, "epochs": 3})
    again = Distill.model_validate(stage.model_dump(mode="json"))
    assert again == stage
    inputs = digest_json("inputs")
    assert again.key(inputs) == stage.key(inputs) != Distill(epochs=3).key(inputs)


def test_views_are_shared_by_short_and_long_trainings():
    assert Distill(epochs=2).view_seeds() == (0, 1)
    assert Distill(epochs=40).view_seeds() == (0, 1, 2, 3)
    assert Distill(epochs=40, views=9).view_seeds() == tuple(range(9))
    assert len(Distill(epochs=40, loss="ce").view_seeds()) == 40


def test_without_a_cache_a_teacher_has_no_view_of_its_own(student, context, tmp_path):
    (problem,) = Distill(**QUICK, cache=False, consistent=False).check(student, context(tmp_path))
    assert "without a cache" in problem.message


@pytest.mark.parametrize(("cache", "consistent"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_student_sees_the_pixels_the_teacher_answered(
    student, context, teacher, task, tmp_path, monkeypatch, augment, cache, consistent
):
    from edgekd.distill import loop

    task.spec = task.spec.but(flip="flip" in AUGMENTS[augment])
    of_pixels = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) / 1000
    teacher.logits = lambda batch: batch.flatten(1) @ of_pixels  # each pixel tells, and its place
    stage = Distill(**QUICK, views=2, cache=cache, consistent=consistent, augment=AUGMENTS[augment])
    split = task.split
    nothing = Split("validation", split("test").inputs[:0], split("test").labels[:0], digest_json("nothing"))
    task.split = lambda name: nothing if name == "validation" else split(name)  # so that only training looks

    seen, answered = [], []

    def looked_at(self, logits, taught, *others):
        answered.append(taught)
        return [logits.sum() * 0.0 + 1.0]

    normalise = loop.Normalisation.__call__

    def watched(self, raw, memory_format=None):
        seen.append(raw.clone())
        return normalise(self, raw, memory_format)

    monkeypatch.setattr(loop.Normalisation, "__call__", watched)
    monkeypatch.setattr(loop.Objective, "forward", looked_at)
    stage.run(student, context(tmp_path))
    assert len(answered) == 12
    alike = [np.allclose(teacher.logits(r.float()), t, atol=1e-5) for r, t in zip(seen, answered, strict=True)]
    assert alike == [consistent] * 12


def test_an_asked_teacher_trains_the_same_student_as_a_cached_one(student, context, teacher, task, tmp_path):
    count = len(task.split("train"))
    kept = Distill(**QUICK, views=4).run(student, context(tmp_path / "kept"))
    assert teacher.images == 4 * count
    asked = Distill(**QUICK, views=4, cache=False).run(student, context(tmp_path / "asked"))
    assert teacher.images == 8 * count
    for name, tensor in weights(kept).items():
        torch.testing.assert_close(weights(asked)[name], tensor, rtol=1e-3, atol=1e-4)
    assert Distill(epochs=9, cache=False).view_seeds() == tuple(range(9))  # a view costs nothing more


def test_preparing_asks_the_teacher_for_every_view_of_the_whole_recipe(student, context, teacher, task, tmp_path):
    given = context(tmp_path)
    Distill(**{**QUICK, "epochs": 6}, views=3).prepare(given)
    assert teacher.images == 3 * len(task.split("train"))
    Distill(**{**QUICK, "epochs": 1}, views=3).run(student, given)
    assert teacher.images == 3 * len(task.split("train"))  # a short training finds its view there


@pytest.mark.parametrize("schedule", ["one-cycle", "constant-then-decay"])
def test_schedule_and_clip_reach_the_training(student, context, tmp_path, schedule):
    options = {**QUICK, "schedule": schedule, "learning_rate": 0.5, "weight_decay": 0.0, "ema": 0.0}
    where = context(tmp_path / "plain")
    plain = Distill.model_validate(options).run(student, where)
    rates = [point.rate for point in read_curve(where.folder)]
    last = {"one-cycle": 0.5 / 25e4, "constant-then-decay": 0.5 * (1 - (1.4 / 2.4) ** 0.5)}
    assert rates[-1] == pytest.approx(last[schedule])
    assert rates[1] > 0.4
    clipped = Distill.model_validate({**options, "clip": 1e-6}).run(student, context(tmp_path / "clipped"))
    for name, weight in student.module.named_parameters():
        assert torch.allclose(clipped.module.get_parameter(name), weight, atol=1e-4)
        assert not torch.equal(plain.module.get_parameter(name), weight)


def test_options_that_are_not_used_leave_the_key_alone():
    assert not {"schedule", "clip", "balance"} & Distill().model_dump(mode="json").keys()
    used = Distill.model_validate({"schedule": "one-cycle", "clip": 1.0})
    assert Distill.model_validate(used.model_dump(mode="json")) == used
    assert len({stage.key("0" * 64) for stage in (Distill(), Distill(clip=1.0), used)}) == 3
    with pytest.raises(ValidationError, match="one-cycle rises by itself"):
        Distill.model_validate({"schedule": "one-cycle", "warmup_epochs": 2})
