from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgekd.distill.autotune import Execution
from edgekd.distill.curve import read_curve
from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.generative.picture import PICTURES_FILE
from edgekd.errors import ConfigurationError, Diverged, EdgeKDError
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.testing.contracts.stage import StageContract, StageLife

pytestmark = pytest.mark.slow  # trains networks

QUICK = {
    "epochs": 2,
    "rounds": 2,
    "student_steps": 2,
    "batch_size": 16,
    "bank": 40,
    "generator": {"latent": 8, "width": 8},
    "precision": "float32",
}


class TestDataFree(StageContract):
    @pytest.fixture
    def life(self, student, open_context):
        return StageLife(DataFree(**QUICK), DataFree(**QUICK, method="dafl"), student, open_context)


def weights(student):
    return {name: tensor.clone() for name, tensor in student.module.state_dict().items()}


@pytest.mark.parametrize("method", ["combined", "dafl", "dfad"])
@pytest.mark.parametrize("bank", [0, 40])
def test_learns_without_a_training_image(student, open_context, tmp_path, method, bank):
    stage = DataFree(**{**QUICK, "bank": bank}, method=method, weights={"bn": 1})
    reported = []
    given = open_context(tmp_path, progress=reported.append)  # whose task raises when it is asked for `train`
    trained = stage.run(student, given)
    before = weights(student)
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(trained).items())
    assert not trained.module.training
    curve = read_curve(tmp_path / "stage")
    assert [point.epoch for point in curve] == [0, 1]
    assert all(point.validation is not None for point in curve)
    assert (tmp_path / "stage" / PICTURES_FILE).read_bytes().startswith(b"\x89PNG")
    assert not any(part._forward_pre_hooks for part in given.teacher.network().modules())


@pytest.mark.parametrize(
    "ramp", [{"weight": {"from": 0, "to": 1}}, {"weight": 0.5, "temperature": {"from": 8, "to": 2}}]
)
def test_what_is_scheduled_moves_with_the_epochs(student, open_context, tmp_path, monkeypatch, ramp):
    from edgekd.distill.losses.kd import KD

    (name, wanted) = ("temperature", [8.0, 2.0]) if "temperature" in ramp else ("weight", [1.0])  # 0 is left out
    seen, plain = [], KD.value

    def value(self, *logits):
        seen.append(getattr(self, name))
        return plain(self, *logits)

    monkeypatch.setattr(KD, "value", value)
    DataFree.model_validate({**QUICK, "loss": {"kd": ramp}}).run(student, open_context(tmp_path))
    assert list(dict.fromkeys(seen)) == wanted


def test_a_teacher_whose_network_was_built_while_it_answered(student, open_context, open_teacher, tmp_path):
    with torch.inference_mode():
        open_teacher.module = copy.deepcopy(open_teacher.module)
    DataFree(**QUICK).run(student, open_context(tmp_path))


def test_it_has_the_threads_that_were_chosen(student, open_context, open_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.distill.generative.synthesis.probe", lambda *_: Execution(threads=1))
    seen, sizes, prepared = [], set(), open_teacher.prepared
    open_teacher.prepared = lambda batch: sizes.add(len(batch)) or prepared(batch)
    given = open_context(tmp_path, stop=lambda: seen.append(torch.get_num_threads()) or False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        DataFree.model_validate({**QUICK, "batch_size": 15, "bank": 0}).run(student, given)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert sizes == {1, 15}  # one for the network's input shape; for two threads the other would be 14


def test_a_task_without_any_data_is_enough(student, open_context, task, tmp_path):
    from edgekd.testing.fakes.withheld import Withheld

    reported = []
    empty = Withheld(task, given=(), error=EdgeKDError)
    DataFree(**QUICK).run(student, open_context(tmp_path, task=empty, progress=reported.append))
    assert [point.validation for point in read_curve(tmp_path / "stage")] == [None, None]
    assert "not validated: the split `validation`" in reported[0].note


def test_the_teacher_must_be_open(student, context, tmp_path):
    (problem,) = DataFree().check(student, context(tmp_path))
    assert "provides only logits" in problem.message
    assert "kind torch, train" in problem.remedy
    (problem,) = DataFree().check(student, context(tmp_path, teacher=None))
    assert "a teacher is needed" in problem.message


def test_what_the_teacher_must_have(student, open_context, open_teacher, tmp_path):
    open_teacher.module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    stage = DataFree(weights={"bn": 1, "activation": 0.1})
    found = "\n".join(problem.message for problem in stage.check(student, open_context(tmp_path)))
    assert "no BatchNorm layer" in found
    assert "no linear layer" in found
    assert list(DataFree(weights={"bn": 0}).check(student, open_context(tmp_path))) == []
    assert list(DataFree(method="dfad").check(student, open_context(tmp_path))) == []


def test_every_other_reason_not_to_run_is_found(student, open_context, open_teacher, task, tmp_path):
    open_teacher.classes = 7
    task.spec = task.spec.but(input=task.spec.input.but(shape=(1, 6, 8)))
    quantized = student.but(annotations=Annotations(precision=Precision.INT8))
    stage = DataFree.model_validate({"loss": {"fitnet": {}}})
    found = "\n".join(problem.message for problem in stage.check(quantized, open_context(tmp_path)))
    for words in ("7 classes", "already int8", "8 pixels a side or more", "inputs (1, 8, 8)", "fitnet compares inner"):
        assert words in found
    with pytest.raises(ConfigurationError, match="7 classes"):
        stage.run(quantized, open_context(tmp_path))


def test_a_training_that_diverges_says_what_to_do(student, open_context, tmp_path):
    with pytest.raises(Diverged, match="lower learning_rate"):
        DataFree(**{**QUICK, "learning_rate": 1e30}).run(student, open_context(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"bank": 8, "batch_size": 16},
        {"method": "gan"},
        {"weights": {"bnn": 1}},
        {"method": "dfad", "weights": {"distance": 0}},
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ValidationError):
        DataFree.model_validate(options)


def test_options_survive_json():
    stage = DataFree.model_validate(
        {"method": "dafl", "weights": {"bn": 2}, "loss": {"kd": {"weight": 1}}, "bank": 500}
    )
    assert DataFree.model_validate(stage.model_dump(mode="json")) == stage
    assert (stage.kept, DataFree(method="dafl").kept, DataFree().kept) == (500, 0, 10_000)
