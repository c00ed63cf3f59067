"""Hugging Face teachers: a tiny vision transformer with random weights, saved as Transformers saves any model."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, MissingError
from edgekd.teachers._protocol import OpenTeacher
from edgekd.teachers.binding import bind
from edgekd.teachers.huggingface import HuggingfaceTeacher
from edgekd.testing.contracts.teacher import TeacherContract

transformers = pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
pytestmark = pytest.mark.runtime


@pytest.fixture(scope="session")
def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4
    )
    config.num_labels = 4
    return transformers.ViTForImageClassification(config).eval()


@pytest.fixture(scope="session")
def folder(tmp_path_factory, vit):
    folder = tmp_path_factory.mktemp("huggingface")
    vit.save_pretrained(folder / "vit")
    shutil.copytree(folder / "vit", folder / "described")
    described = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.25], "rescale_factor": 1 / 255}
    (folder / "described" / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def make(folder):
    return lambda model="vit", **options: HuggingfaceTeacher.model_validate(
        {"model": model, **options}, context={"folder": folder}
    )


@pytest.fixture
def batch():
    return torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class TestHuggingface(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return make


def test_answers_are_the_models_on_the_tasks_normalisation(make, spec, vit, batch):
    teacher = bind(make(), spec)
    with torch.no_grad():
        expected = vit(pixel_values=(batch.float() - 120) / 60).logits
    torch.testing.assert_close(teacher.logits(batch), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(teacher, OpenTeacher)
    with torch.no_grad():
        torch.testing.assert_close(teacher.network()(teacher.prepared(batch)), expected, atol=1e-5, rtol=1e-4)


def test_its_preprocessor_comes_before_the_task_and_after_what_is_written(make, spec, vit, batch):
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.2, 0.25]).view(3, 1, 1)
    with torch.no_grad():
        expected = vit(pixel_values=(batch.float() / 255 - mean) / std).logits
    torch.testing.assert_close(bind(make("described"), spec).logits(batch), expected, atol=1e-4, rtol=1e-4)
    written = bind(make("described", mean=[120.0], std=[60.0]), spec)
    torch.testing.assert_close(written.logits(batch), bind(make(), spec).logits(batch), atol=1e-5, rtol=1e-4)


def test_a_preprocessor_of_another_scale_is_not_guessed(make, spec, folder):
    shutil.copytree(folder / "vit", folder / "scaled", dirs_exist_ok=True)
    described = {"image_mean": [0.5], "image_std": [0.5], "rescale_factor": 1 / 127.5}
    (folder / "scaled" / "preprocessor_config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigurationError, match="write its mean and std in raw units"):
        bind(make("scaled"), spec)


@pytest.mark.parametrize(("rescales", "scale"), [(True, 255.0), (False, 1.0)])
def test_a_preprocessor_that_does_not_normalise_is_followed(make, spec, vit, batch, folder, rescales, scale):
    """The task's mean and std are what a model without any would be given; this one comes with its own: none."""
    shutil.copytree(folder / "vit", folder / "plain", dirs_exist_ok=True)
    described = {"do_normalize": None, "do_rescale": rescales, "image_mean": [0.5], "image_std": [0.5]}
    (folder / "plain" / "preprocessor_config.json").write_text(json.dumps(described))
    with torch.no_grad():
        expected = vit(pixel_values=batch.float() / scale).logits
    torch.testing.assert_close(bind(make("plain"), spec).logits(batch), expected, atol=1e-4, rtol=1e-4)


def test_a_preprocessor_that_flips_the_channels_is_refused(make, spec, folder):
    shutil.copytree(folder / "vit", folder / "flipped", dirs_exist_ok=True)
    (folder / "flipped" / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True}))
    with pytest.raises(ConfigurationError, match="turns RGB into BGR"):
        bind(make("flipped"), spec)


def test_the_error_for_images_of_another_size_names_resize(make, spec):
    large = spec.but(input=spec.input.but(shape=(3, 16, 16)))
    with pytest.raises(ConfigurationError, match="or its `resize`"):
        bind(make(), large)
    assert bind(make(resize=[8, 8]), large).classes == 4


def test_digest_covers_weights_and_normalisation(make, spec, vit, folder):
    torch.manual_seed(1)
    other = transformers.ViTForImageClassification(vit.config)
    other.save_pretrained(folder / "other")
    digests = {bind(make(model), spec).digest() for model in ("vit", "described", "other")}
    assert len(digests | {bind(make(mean=[1.0], std=[2.0]), spec).digest()}) == 4


def test_nothing_is_fetched_unless_it_is_asked_for(make):
    with pytest.raises(ValidationError, match="`download: true`"):
        make("google/vit-base-patch16-224")


def test_a_model_that_was_not_trained_to_classify_is_refused(make, spec, vit, folder):
    vit.vit.save_pretrained(folder / "headless")
    with pytest.raises(ConfigurationError, match="lacks the weights `classifier"):
        bind(make("headless"), spec)


def test_pickled_weights_are_not_read(make, spec, vit, folder):
    vit.config.save_pretrained(folder / "pickled")
    torch.save(vit.state_dict(), folder / "pickled" / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="safe_serialization=True"):
        bind(make("pickled"), spec)


def test_damaged_weights_are_refused(make, spec, folder):
    shutil.copytree(folder / "vit", folder / "damaged", dirs_exist_ok=True)
    path = folder / "damaged" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigurationError, match="can't be loaded by Transformers"):
        bind(make("damaged"), spec)


def test_the_package_that_is_missing_is_named(make, spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match=r"edgekd\[huggingface\]"):
        bind(make(), spec)
