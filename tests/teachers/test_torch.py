"""PyTorch teachers."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.teacher_source import live_teacher
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.tasks._protocol import InputSpec, TextSpec
from edgekd.teachers._protocol import OpenTeacher
from edgekd.teachers.binding import bind
from edgekd.teachers.observed import observing, teacher_layout
from edgekd.teachers.torch import TorchTeacher
from edgekd.testing.contracts.teacher import TeacherContract


@pytest.fixture
def make(teacher_folder, options):
    return lambda **changes: TorchTeacher.model_validate(options | changes, context={"folder": teacher_folder})


class TestTorchTeacher(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return make


class TestResized(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return lambda: make(resize=[16, 16])


@pytest.fixture
def batch():
    return torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_answers_are_the_modules_on_normalised_input(make, spec, module, batch):
    with torch.no_grad():
        expected = module((batch.float() - 120) / 60)
    assert torch.allclose(bind(make(), spec).logits(batch), expected, atol=1e-5)


def test_own_normalisation_wins_over_the_tasks(make, spec, module, batch):
    teacher = bind(make(mean=[1.0, 2.0, 3.0], std=[50.0, 60.0, 70.0]), spec)
    own = (batch.float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([50.0, 60, 70]).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(teacher.logits(batch), module(own), atol=1e-5)


def test_digest_changes_with_everything_that_changes_answers(make, spec, teacher_folder, tmp_path):
    digests = {
        bind(make(), spec).digest(),
        bind(make(), spec.but(input=spec.input.but(mean=(1.0,)))).digest(),
        bind(make(weights=None), spec).digest(),
        bind(make(resize=[16, 16]), spec).digest(),
    }
    source = (teacher_folder / "small_teacher.py").read_text()
    (tmp_path / "small_teacher.py").write_text(source.replace("ReLU()", "ReLU6()"))
    (tmp_path / "small.safetensors").write_bytes((teacher_folder / "small.safetensors").read_bytes())
    moved = TorchTeacher.model_validate(
        {"module": "small_teacher.py:small", "weights": "small.safetensors"}, context={"folder": tmp_path}
    )
    digests.add(moved.bound(spec).digest())
    assert len(digests) == 5


def test_it_has_to_be_bound(make, batch):
    with pytest.raises(ConfigurationError, match="no mean and std"):
        make().logits(batch)
    with pytest.raises(ConfigurationError, match="not run yet"):
        _ = make().classes


def test_its_network_can_be_looked_into_and_no_hook_is_left(make, spec, module, batch):
    teacher = bind(make(), spec)
    assert isinstance(teacher, OpenTeacher)
    layout = teacher_layout(teacher, InputSpec(shape=batch.shape[1:]))
    points = [layout.at("0"), layout.at("penultimate")]
    with observing(teacher, InputSpec(shape=batch.shape[1:]), points) as ask:
        logits, seen = ask(batch.float())
    with torch.no_grad():
        expected = module[0]((batch.float() - 120) / 60)
    assert torch.allclose(seen["0"], expected, atol=1e-5)
    assert torch.equal(logits, teacher.logits(batch.float()))
    assert seen["penultimate"].shape == (4, 32)
    with pytest.raises(UnknownName):
        layout.at("9")
    with pytest.raises(RuntimeError), observing(teacher, InputSpec(shape=batch.shape[1:]), points) as ask:
        ask(batch[:, :, :1, :1].float())  # too small for the convolution
    assert not any(part._forward_hooks for part in teacher.network().modules())


FLATTENING = """
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 4)

    def forward(self, images):
        return self.classes(self.conv(images).view(-1, 256))
"""


def test_a_model_that_flattens_by_view(tmp_path, spec, batch):
    """`view` refuses maps whose channels are last, as PyTorch's own tutorials have it."""
    (tmp_path / "flattening.py").write_text(FLATTENING)
    made = TorchTeacher.model_validate(
        {"module": "flattening.py:Small", "mean": [120.0], "std": [60.0]}, context={"folder": tmp_path}
    )
    teacher = bind(made, spec)
    network, inputs = teacher.network(), (batch.float() - 120) / 60
    with torch.no_grad():
        assert torch.equal(teacher.logits(batch), network(inputs))
        assert torch.equal(network(teacher.prepared(batch)), network(inputs))  # as losses on features call it
    images = batch.float().requires_grad_()
    network(teacher.prepared(images)).sum().backward()  # as data-free distillation does
    assert images.grad is not None
    with pytest.raises(ConfigurationError, match="can't take this task's images"):
        bind(made, spec.but(input=InputSpec(shape=(3, 9, 8))))


def test_a_model_that_flattens_by_view_is_asked_without_a_cache(tmp_path, spec, batch):
    (tmp_path / "flattening.py").write_text(FLATTENING)
    made = TorchTeacher.model_validate(
        {"module": "flattening.py:Small", "mean": [120.0], "std": [60.0]}, context={"folder": tmp_path}
    )
    teacher = bind(made, spec)
    with live_teacher(teacher, spec.input) as asked:
        logits, _ = asked(0, torch.arange(len(batch)), batch)
    assert torch.allclose(logits, teacher.logits(batch), atol=1e-5)


def test_a_model_that_gives_no_logits_is_refused(tmp_path, spec):
    (tmp_path / "map_teacher.py").write_text("from torch import nn\ndef small():\n    return nn.Conv2d(3, 4, 1)\n")
    teacher = TorchTeacher.model_validate({"module": "map_teacher.py:small"}, context={"folder": tmp_path})
    with pytest.raises(ConfigurationError, match=r"\(2, 4, 8, 8\)"):
        bind(teacher, spec)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    lines = ["import torch", "", "def build():", "    module = torch.nn.Linear(2, 2)"]
    lines += ["    torch.nn.init.constant_(module.weight, float('nan'))", "    return module"]
    (tmp_path / "nan_teacher.py").write_text("\n".join(lines))
    teacher = TorchTeacher.model_validate({"module": "nan_teacher:build"}, context={"folder": tmp_path})
    with pytest.raises(ConfigurationError, match="the weights `weight` are NaN or infinite"):
        teacher.network()


OTHER = """
from torch import nn

class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))

def text():
    return Reads()

def signal():
    return nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
"""
TEXT = InputSpec(
    name="tokens",
    shape=(12,),
    raw_dtype="int32",
    raw_range=(0, 19),
    text=TextSpec(vocabulary=20, padding=0, tokenizer="0" * 64),
)
SIGNAL = InputSpec(shape=(2, 64), raw_dtype="float32", raw_range=(-1, 1))


@pytest.mark.parametrize(("given", "which"), [(TEXT, "text"), (SIGNAL, "signal")])
def test_it_teaches_texts_and_signals(tmp_path, spec, given, which):
    (tmp_path / "other.py").write_text(OTHER)
    teacher = TorchTeacher.model_validate({"module": f"other.py:{which}"}, context={"folder": tmp_path})
    bound = bind(teacher, spec.but(input=given))
    batch = torch.from_numpy(given.random(0, 4))
    logits = bound.logits(batch)
    with torch.no_grad():
        assert torch.allclose(logits, bound.network()(batch), atol=1e-6)
    assert logits.shape == (4, 4)
