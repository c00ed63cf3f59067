"""Every kind of teacher teaches a student by `kd`, from the project file on; one in a file refuses a feature loss."""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekd import plugins
from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.errors import ConfigurationError, MissingError
from edgekd.events import SilentEvents
from edgekd.export._protocol import ExportOptions
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.project import Project, read_project
from edgekd.running import with_teacher
from edgekd.stages import StageContext
from edgekd.students.student import new_student
from edgekd.teachers.keras import _keras
from tests.tasks.reviews import written

pytestmark = [pytest.mark.slow, pytest.mark.runtime]

SHAPE, CLASSES = (1, 8, 8), 10
SOURCE = """
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 10),
    )
"""
PROJECT = """\
schema: edgekd.project/1
task: {{kind: digits, train_limit: 128}}
teacher: {teacher}
student: {{family: resnet, stages: 2, space: {{width: [8, 8], depth: [1, 1]}}}}
target: target.yaml
recipe:
  - distill: {{loss: {loss}, epochs: 1, batch_size: 32, precision: float32}}
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets: {size: {file: 256 KiB}}
"""
TEACHERS = {
    "torch": "{kind: torch, module: 'small.py:small', weights: small.safetensors}",
    "onnx": "{kind: onnx, file: small.onnx}",
    "tflite": "{kind: tflite, file: small.tflite, input: raw}",
    "keras": "{kind: keras, file: small.keras}",
    "timm": "{kind: timm, model: resnet10t, pretrained: false}",
    "huggingface": "{kind: huggingface, model: vit}",
    "ensemble": "{kind: ensemble, members: [{kind: onnx, file: small.onnx}, {kind: torch, module: 'small.py:small', "
    "weights: small.safetensors}]}",
    "train": "{kind: train, width: 8, epochs: 1}",
}
IN_FILES = ("onnx", "tflite", "keras")


def in_torch(folder: Path) -> torch.nn.Module:
    (folder / "small.py").write_text(textwrap.dedent(SOURCE))
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    torch.manual_seed(0)
    module: torch.nn.Module = names["small"]().eval()
    save_file(module.state_dict(), folder / "small.safetensors")
    return module


def in_onnx(folder: Path) -> None:
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        in_torch(folder),
        (torch.zeros(2, *SHAPE),),
        str(folder / "small.onnx"),
        dynamic_shapes=(batch,),
        dynamo=True,
        verbose=False,
    )


def in_tflite(folder: Path) -> None:
    from edgekd.students.resnet import ResNet
    from edgekd.tasks.digits import Digits

    spec = Digits(train_limit=128).spec
    family = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 1]}, "stages": 2})
    student = new_student(family, family.space(spec).at(0), spec, seed=0)
    student = calibrate(student, np.zeros((1, *SHAPE), np.uint8), Precision.FLOAT32, "minmax")
    backend = Backend.model_validate("litert/xnnpack")
    TfliteExporter().export(student, ExportOptions(), backend, None, folder / "small.tflite")


def in_keras(folder: Path) -> None:
    try:
        keras = _keras()
    except MissingError as error:
        pytest.skip(str(error))
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Input((8, 8, 1)), layers.Conv2D(8, 3, strides=2), layers.ReLU(), layers.Flatten(), layers.Dense(10)]
    keras.Sequential(stack).save(folder / "small.keras")


def in_transformers(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **sizes)
    config.num_labels = CLASSES
    transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")


MAKERS = {
    "torch": in_torch,
    "onnx": in_onnx,
    "tflite": in_tflite,
    "keras": in_keras,
    "timm": lambda _: pytest.importorskip("timm", reason="the extra `timm` is not installed"),
    "huggingface": in_transformers,
    "ensemble": in_onnx,
    "train": lambda _: None,
}


def project_with(folder: Path, teacher: str, loss: str) -> Project:
    (folder / "project.yaml").write_text(PROJECT.format(teacher=TEACHERS[teacher], loss=loss))
    (folder / "target.yaml").write_text(TARGET)
    return with_teacher(read_project(folder / "project.yaml"), SilentEvents())


def distilled(folder: Path, project: Project) -> Any:
    spec = project.task.spec
    student = new_student(project.family, project.family.space(spec).at(0), spec, seed=0)
    context = StageContext(
        task=project.task,
        teacher=project.teacher,
        device=None,
        backend=None,
        folder=folder / "stage",
        cache=folder / "cache",
        seed=0,
        progress=lambda _: None,
        stop=lambda: False,
    )
    before = {name: value.clone() for name, value in student.module.state_dict().items()}
    after = project.recipe[0].run(student, context).module.state_dict()
    return SimpleNamespace(before=before, after=after)


def test_every_kind_of_teacher_is_tried_here():
    """`heads` teaches tasks of several heads: tests/teachers/test_heads.py."""
    assert {*plugins.names("edgekd.teachers")} == {*TEACHERS, "heads"}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_student_learns_from_every_kind_of_teacher(kind, tmp_path):
    MAKERS[kind](tmp_path)
    weights = distilled(tmp_path, project_with(tmp_path, kind, "{kd: {temperature: 4, weight: 1}}"))
    assert all(torch.isfinite(value.float()).all() for value in weights.after.values())
    assert any(not torch.equal(weights.before[name], value) for name, value in weights.after.items())


@pytest.mark.parametrize("kind", IN_FILES)
def test_a_loss_on_inner_activations_refuses_a_teacher_in_a_file(kind, tmp_path):
    MAKERS[kind](tmp_path)
    project = project_with(tmp_path, kind, "{fitnet: {}}")
    with pytest.raises(
        ConfigurationError, match="fitnet needs the teacher's features, and `small` provides only logits"
    ):
        distilled(tmp_path, project)


TEXTS = """\
schema: edgekd.project/1
task: {kind: text-classification, file: reviews.csv, tokens: 16}
teacher: {kind: train, epochs: 1, family: transformer, options: {space: {depth: 1, heads: 1, width: 32, mlp_ratio: 2}}}
student: {family: transformer, space: {depth: 1, heads: 1, width: 16, mlp_ratio: 2}}
target: target.yaml
recipe:
  - distill: {loss: {fitnet: {}}, epochs: 1, batch_size: 32, precision: float32, cache: CACHE}
"""


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_loss_on_inner_activations_learns_from_a_teacher_of_texts(cache, tmp_path):
    written(tmp_path, 64)
    (tmp_path / "project.yaml").write_text(TEXTS.replace("CACHE", cache))
    (tmp_path / "target.yaml").write_text(TARGET)
    weights = distilled(tmp_path, with_teacher(read_project(tmp_path / "project.yaml"), SilentEvents()))
    assert any(not torch.equal(weights.before[name], value) for name, value in weights.after.items())
