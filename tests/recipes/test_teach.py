from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, EdgeKDError, Interrupted
from edgekd.recipes.teach import TrainedTeacher
from edgekd.tasks.digits import Digits
from edgekd.teachers._protocol import OpenTeacher
from edgekd.teachers.binding import bind
from edgekd.teachers.ensemble import EnsembleTeacher
from edgekd.testing.contracts.teacher import TeacherContract


@pytest.mark.slow
def test_is_trained_once_and_answers_like_a_teacher(task, tmp_path):
    reported = []
    options = TrainedTeacher(width=8, epochs=8, batch_size=32)
    first = options.prepare(task, tmp_path, reported.append)
    assert reported[-1].stage == "teacher"
    assert reported[-1].done == reported[-1].total == 8 * 90
    reported.clear()
    again = options.prepare(task, tmp_path, reported.append)
    assert reported == []
    raw = torch.from_numpy(task.split("test").inputs).float()
    assert torch.equal(first.logits(raw), again.logits(raw))
    assert first.digest() == again.digest() != TrainedTeacher(width=16).prepare(task, tmp_path).digest()
    assert bind(first, task.spec).classes == 3
    assert not first.logits(raw).requires_grad
    assert task.score(first.logits(raw).numpy(), task.split("test").labels).value > 0.9


@pytest.mark.slow
def test_another_family_of_stages_is_as_wide_and_deep_as_asked_for(task, tmp_path):
    ready = TrainedTeacher(family="mobilenet", width=8, depth=2, epochs=1).prepare(task, tmp_path)
    choices = dict(ready._student.arch.choices)
    assert choices == {"width1": 8, "width2": 16, "width3": 32} | {
        f"{axis}{stage}": most for axis, most in (("depth", 2), ("expansion", 6)) for stage in (1, 2, 3)
    }
    assert ready.name == "mobilenet of width 8, trained here"


@pytest.mark.slow
def test_it_is_known_by_its_weights(task, tmp_path):
    """What it answered is kept by its digest: the answers of other weights must not be found there."""
    options = TrainedTeacher(width=8, epochs=1)
    ready = options.prepare(task, tmp_path)
    assert ready.digest() == options.prepare(task, tmp_path).digest()
    assert ready.digest() != TrainedTeacher(width=8, epochs=2).prepare(task, tmp_path).digest()


def test_it_needs_images_to_learn_from(task, tmp_path, monkeypatch):
    whole, train = task.split, task.split("train")
    nothing = replace(train, inputs=train.inputs[:0], labels=train.labels[:0])
    monkeypatch.setattr(task, "split", lambda name: nothing if name == "train" else whole(name))
    with pytest.raises(
        ConfigurationError, match=r"kind train is trained here, and task `bars` has no training samples"
    ):
        TrainedTeacher().prepare(task, tmp_path)


class TestPrepared(TeacherContract):
    @pytest.fixture
    def spec(self, task):
        return task.spec

    @pytest.fixture
    def make_teacher(self, task, session_cache):
        return lambda: TrainedTeacher(width=8, epochs=1, batch_size=32).prepare(task, session_cache)


CHAIN = {
    "width": 8,
    "epochs": 2,
    "batch_size": 32,
    "teacher": {"kind": "train", "width": 16, "epochs": 3, "batch_size": 32},
}


@pytest.mark.slow
def test_an_assistant_is_taught_by_its_teacher_and_each_is_trained_once(task, tmp_path):
    reported = []
    assistant = TrainedTeacher.model_validate(CHAIN).prepare(task, tmp_path, reported.append)
    notes = [at.note for at in reported]
    assert any("teacher answers" in note for note in notes)
    assert len(list((tmp_path / "teachers" / "students").iterdir())) == 2
    reported.clear()
    again = TrainedTeacher.model_validate(CHAIN).prepare(task, tmp_path, reported.append)
    assert reported == []
    assert again.digest() == assistant.digest()
    # the teacher of the chain is the very one that stands alone, and another one teaches another assistant
    alone = {key: value for key, value in CHAIN["teacher"].items() if key != "kind"}
    TrainedTeacher.model_validate(alone).prepare(task, tmp_path, reported.append)
    assert reported == []
    untaught = TrainedTeacher(width=8, epochs=2, batch_size=32).prepare(task, tmp_path)
    assert untaught.digest() != assistant.digest()
    assert isinstance(assistant, OpenTeacher)


@pytest.mark.slow
def test_a_chain_stopped_in_its_middle_goes_on(task, tmp_path):
    whole = TrainedTeacher.model_validate(CHAIN).prepare(task, tmp_path / "whole")
    countdown = iter([False] * 12)
    with pytest.raises(Interrupted):
        TrainedTeacher.model_validate(CHAIN).prepare(task, tmp_path / "parts", stop=lambda: next(countdown, True))
    assert len(list((tmp_path / "parts" / "teachers" / "students").iterdir())) == 1
    parts = TrainedTeacher.model_validate(CHAIN).prepare(task, tmp_path / "parts")
    raw = torch.from_numpy(task.split("test").inputs).float()
    torch.testing.assert_close(parts.logits(raw), whole.logits(raw), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_chains_may_be_longer_and_keep_their_paths(task, tmp_path):
    (tmp_path / "bars.py").write_text(
        "from torch import nn\ndef rows():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    written = {**CHAIN, "teacher": {**CHAIN["teacher"], "teacher": {"kind": "torch", "module": "bars.py:rows"}}}
    read = TrainedTeacher.model_validate(written, context={"folder": tmp_path})
    again = TrainedTeacher.model_validate_json(read.model_dump_json())
    assert again.teacher["teacher"]["module"]["folder"] == str(tmp_path.resolve())
    assert again.prepare(task, tmp_path / "cache").classes == 3
    assert len(list((tmp_path / "cache" / "teachers" / "students").iterdir())) == 2


def test_a_loss_and_its_teacher_belong_together(tmp_path):
    with pytest.raises(ValidationError, match="the loss needs a teacher"):
        TrainedTeacher.model_validate({"loss": "kd"})
    with pytest.raises(ValidationError, match="the loss needs no teacher"):
        TrainedTeacher.model_validate({**CHAIN, "loss": "ce"})
    with pytest.raises(ValidationError, match="needs its `kind`"):
        TrainedTeacher.model_validate({"teacher": {"width": 8}})
    with pytest.raises(ValidationError, match="no teacher `trian`"):
        TrainedTeacher.model_validate({"teacher": {"kind": "trian"}})
    with pytest.raises(ValidationError, match="no such file"):
        TrainedTeacher.model_validate({"teacher": {"kind": "onnx", "file": "no.onnx"}}, context={"folder": tmp_path})
    assert TrainedTeacher.model_validate({**CHAIN, "loss": {"dkd": {}}})._distill_stage().loss.needs_teacher
    assert (
        TrainedTeacher.model_validate({"loss": {"ce": {"label_smoothing": 0.1}}})._distill_stage().loss.parts[0][0]
        == "ce"
    )


@pytest.mark.slow
def test_two_of_them_make_an_ensemble(task, tmp_path):
    members = [{"kind": "train", "width": 8, "epochs": 1}, {"kind": "train", "width": 16, "epochs": 1}]
    asked = EnsembleTeacher.model_validate({"members": members})
    ready = bind(asked.prepare(task, tmp_path, lambda _: None, lambda: False), task.spec)
    raw = torch.from_numpy(task.split("test").inputs).float()
    alone = [TrainedTeacher(width=w, epochs=1).prepare(task, tmp_path).logits(raw) for w in (8, 16)]
    torch.testing.assert_close(ready.logits(raw), (alone[0] + alone[1]) / 2)


def test_says_that_it_is_not_trained(tmp_path):
    with pytest.raises(EdgeKDError, match="prepare"):
        TrainedTeacher().logits(torch.zeros(1, 1, 8, 8))


def test_can_be_stopped(task, tmp_path):
    with pytest.raises(Interrupted):
        TrainedTeacher(width=8).prepare(task, tmp_path, stop=lambda: True)


@pytest.mark.runtime
def test_default_is_good_on_digits_within_its_time(tmp_path):
    digits = Digits()
    begun = time.process_time()
    teacher = TrainedTeacher().prepare(digits, tmp_path)
    assert time.process_time() - begun < 160, "it takes about 15 s on 2 cores, and other programs may run beside a test"
    validation = digits.split("validation")
    answers = teacher.logits(torch.from_numpy(validation.inputs).float())
    assert digits.score(answers.numpy(), validation.labels).value >= 0.975


@pytest.mark.slow
def test_reading_its_options_imports_no_torch():
    code = "import sys, edgekd.recipes.teach as t; t.TrainedTeacher(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_options_are_those_of_the_family(task, tmp_path):
    options = {"stages": 2, "space": {"width": 8, "stem_stride": [2]}}
    ready = TrainedTeacher(width=16, epochs=1, options=options).prepare(task, tmp_path)
    student = ready._student
    assert dict(student.arch.choices) == {"width1": 8, "width2": 8, "depth1": 1, "depth2": 1}
    assert next(m for m in student.module.modules() if isinstance(m, torch.nn.Conv2d)).stride == (2, 2)
    for space in (None, [2]):
        with pytest.raises(ConfigurationError, match=r"teacher\.options\.space is .*: a mapping is expected"):
            TrainedTeacher(options={"space": space}).prepare(task, tmp_path)
