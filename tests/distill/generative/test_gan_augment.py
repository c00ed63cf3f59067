from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekd.distill.generative.gan_augment import GanAugment
from edgekd.distill.generative.generated_images import IMAGES_FILE, read_images
from edgekd.distill.generative.picture import PICTURES_FILE
from edgekd.errors import Interrupted
from edgekd.testing.contracts.stage import StageContract, StageLife

pytestmark = pytest.mark.slow  # trains networks

GAN = {"steps": 6, "batch_size": 8, "latent": 8, "width": 8}
QUICK = {"epochs": 2, "batch_size": 32, "precision": "float32", "ratio": 0.5, "gan": GAN}


class TestGanAugment(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(GanAugment(**QUICK), GanAugment(**{**QUICK, "ratio": 1.0}), student, context)


def weights(student):
    return {name: tensor.clone() for name, tensor in student.module.state_dict().items()}


def test_trains_on_real_and_drawn_images_that_the_teacher_labels(student, context, teacher, tmp_path, monkeypatch):
    from edgekd.distill import loop

    trainings = []
    inner = loop.train

    def watched(module, training_data, *rest, **more):
        trainings.append(training_data)
        return inner(module, training_data, *rest, **more)

    monkeypatch.setattr(loop, "train", watched)
    GanAugment(**QUICK).run(student, context(tmp_path))
    (training_data,) = trainings
    assert len(training_data.inputs) == len(training_data.labels) == 90 + 45
    assert training_data.inputs.dtype == torch.uint8
    drawn = training_data.inputs[90:].float()
    assert torch.equal(training_data.labels[90:], teacher.logits(drawn).argmax(1))
    assert (tmp_path / "stage" / PICTURES_FILE).is_file()


def test_students_of_one_project_share_the_drawn_images(student, context, tmp_path, monkeypatch):
    from edgekd.distill.generative import gan

    GanAugment(**QUICK).prepare(context(tmp_path))
    (folder,) = (path for path in (tmp_path / "cache" / "generated").iterdir() if path.is_dir())
    assert [path.name for path in folder.iterdir()] == [IMAGES_FILE]
    monkeypatch.setattr(gan, "train_generator", lambda *_, **__: pytest.fail("it was trained again"))
    GanAugment(**QUICK).run(student, context(tmp_path))
    GanAugment(**{**QUICK, "epochs": 1, "ratio": 0.2}).run(student, context(tmp_path))


def test_a_damaged_file_is_drawn_again(student, context, tmp_path):
    whole = GanAugment(**QUICK).run(student, context(tmp_path))
    (path,) = (tmp_path / "cache" / "generated").glob(f"*/{IMAGES_FILE}")
    before = path.read_bytes()
    path.write_bytes(before[:100])
    assert read_images(path.parent, 45) is None
    again = GanAugment(**QUICK).run(student, context(tmp_path))
    assert path.read_bytes() == before
    assert all(torch.equal(weights(again)[name], tensor) for name, tensor in weights(whole).items())


def test_an_interrupted_generator_says_where_it_stopped(student, context, tmp_path):
    countdown = iter([False] * 4)
    with pytest.raises(Interrupted, match=r"stopped after 4 of 6 steps of the generator"):
        GanAugment(**QUICK).prepare(replace(context(tmp_path), stop=lambda: next(countdown, True)))


def test_someone_must_label(student, context, tmp_path):
    stage = GanAugment(**QUICK, loss="ce")
    assert list(stage.check(student, context(tmp_path))) == []
    (problem,) = stage.check(student, context(tmp_path, teacher=None))
    assert "no teacher to label" in problem.message
    assert np.all([isinstance(problem.remedy, str)])
