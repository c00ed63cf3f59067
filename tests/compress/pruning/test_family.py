"""A person's own model as a family of smaller ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd import plugins
from edgekd.compress.pruning.family import Pruned
from edgekd.errors import ConfigurationError
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students.analysis import analyse, analyse_arch, kernels_of, kernels_of_arch
from edgekd.students.own import Own, forget_models
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.family import FamilyContract

pytestmark = pytest.mark.slow  # analyses and rebuilds real networks

EXAMPLES = Path(__file__).parents[3] / "examples"
MODELS = f"""
import importlib.util
_spec = importlib.util.spec_from_file_location("models_of_tests", {str(Path(__file__).with_name("conftest.py"))!r})
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
resnet20, mobile, vgg, stem_last = _module.resnet20, _module.mobile, _module.vgg, _module.stem_last
"""


@pytest.fixture
def spec() -> TaskSpec:
    return TaskSpec(name="images", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=10), data="0" * 64)


@pytest.fixture
def make(tmp_path, build):
    def made(name: str, **options) -> Pruned:
        (tmp_path / "models_to_prune.py").write_text(MODELS)
        np.savez(tmp_path / f"{name}.npz", **{key: value.numpy() for key, value in build(name).state_dict().items()})
        chosen = {"model": f"models_to_prune.py:{name}", "weights": f"{name}.npz", **options}
        return Pruned.model_validate(chosen, context={"folder": tmp_path})

    return made


class TestResNet(FamilyContract):
    @pytest.fixture
    def make_family(self, make):
        return lambda: make("resnet20", ratios=[0.25, 0.5, 1.0])


class TestGroupByGroup(FamilyContract):
    @pytest.fixture
    def make_family(self, make):
        return lambda: make("mobile", ratios=[0.5, 1.0], round_to=4, ratio_per="group")


class TestMobile(FamilyContract):
    @pytest.fixture
    def make_family(self, make):
        return lambda: make("mobile", ratios=[0.5, 1.0], round_to=4)


class TestChain(FamilyContract):
    @pytest.fixture
    def make_family(self, make):
        return lambda: make("vgg", ratios=[0.5, 0.75, 1.0])


def largest(family: Pruned, spec: TaskSpec, **changes: float) -> Arch:
    return Arch.of({**{axis.name: axis.choices[-1] for axis in family.space(spec).axes}, **changes})


def test_is_found_by_name():
    assert plugins.load("edgekd.families", "pruned") is Pruned


def test_the_axes_are_shares_by_height_and_blocks_by_stage(make, spec):
    axes = {axis.name: axis.choices for axis in make("resnet20").space(spec).axes}
    assert axes == {
        "blocks_layer1": (1, 2, 3),
        "blocks_layer2": (1, 2, 3),
        "blocks_layer3": (1, 2, 3),
        "keep_8": (0.25, 0.5, 0.75, 1.0),
        "keep_16": (0.25, 0.5, 0.75, 1.0),
        "keep_32": (0.5, 1.0),  # of 16 channels, rounded to 8, there are only two choices
    }


def test_each_group_may_have_a_ratio_of_its_own(make, spec, batch):
    family = make("resnet20", ratio_per="group")
    axes = [axis.name for axis in family.space(spec).axes]
    assert [name for name in axes if name.startswith("keep_layer2")] == [
        "keep_layer2.0.conv1",
        "keep_layer2.1.conv1",
        "keep_layer2.2.conv1",
    ]
    arch = largest(family, spec, blocks_layer2=2, **{"keep_layer2.0.conv1": 0.25, "keep_layer2.1.conv1": 0.75})
    student = family.build(arch, spec)
    assert [block.conv1.out_channels for block in student.layer2 if hasattr(block, "conv1")] == [8, 24]
    assert student.layer3[0].conv1.out_channels == 64
    with torch.no_grad():
        assert student(batch).shape == (4, 10)


def test_a_group_keeps_its_ratio_where_its_first_layer_goes_with_a_block(make, spec, batch):
    family = make("stem_last", ratio_per="group", ratios=[0.5, 1.0])
    assert "blocks.0" in family.whole(spec).removable[:2]
    student = family.build(largest(family, spec, **{"blocks_blocks": 1, "keep_blocks.0.body.6": 0.5}), spec)
    assert student.stem.out_channels == 8
    with torch.no_grad():
        assert student(batch).shape == (4, 10)


@pytest.mark.parametrize("name", ["resnet20", "mobile", "vgg"])
def test_nothing_left_out_is_the_model_itself(make, build, spec, batch, name):
    family = make(name)
    with torch.no_grad():
        assert torch.allclose(family.build(largest(family, spec), spec)(batch), build(name)(batch), atol=1e-5)
    assert family.original(spec) == largest(family, spec)


def test_channels_are_kept_by_share_and_rounded(make, spec):
    family = make("resnet20")
    student = family.build(largest(family, spec, keep_8=0.25, keep_16=0.75), spec)
    assert student.layer3[1].conv1.out_channels == 16
    assert student.layer2[0].conv1.out_channels == 24
    assert student.layer1[0].conv1.out_channels == 16
    assert student.linear.out_features == 10
    assert student.conv1.out_channels == 16


def test_the_largest_channels_stay(make, build, spec):
    family = make("vgg", round_to=4)
    student = family.build(largest(family, spec, keep_1=0.5), spec)
    kept, before = student[5].weight.detach(), build("vgg")[5].weight.detach()
    rows = [int((before == row).all(1).nonzero()[0]) for row in kept]
    assert rows == sorted(rows)
    score = before.square().sum(1) + build("vgg")[7].weight.detach().square().sum(0)
    assert set(rows) == set(score.argsort(descending=True)[:32].tolist())


def test_a_group_outlives_the_block_that_made_it_first(make, spec, batch):
    family = make("mobile", ratios=[0.5, 1.0], round_to=4)
    arch = largest(family, spec, keep_8=0.5, **{"blocks_1_1": 1})
    student = family.build(arch, spec)
    assert isinstance(student[1][1], nn.Identity)
    assert student[1][0].body[6].out_channels == 12
    assert student(batch).shape == (4, 10)


def test_one_ratio_is_fixed_and_not_an_axis(make, spec):
    family = make("resnet20", ratios=[0.5])
    assert [axis.name for axis in family.space(spec).axes] == ["blocks_layer1", "blocks_layer2", "blocks_layer3"]
    assert family.build(largest(family, spec), spec).layer3[0].conv1.out_channels == 32
    assert family.original(spec) is None


def test_a_model_of_which_nothing_can_be_pruned_is_a_space_of_one_arch(make, build, spec, batch):
    family = make("vgg", ratios=[1.0])
    space = family.space(spec)
    assert list(space) == [Arch.of({})] == [family.original(spec)]
    with torch.no_grad():
        assert torch.equal(family.build(space.at(0), spec)(batch), build("vgg")(batch))


ANSWERING = """
import dataclasses, torch
from torch import nn

@dataclasses.dataclass
class Said:
    hidden: torch.Tensor
    logits: torch.Tensor

class Many(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.last = kind, nn.Conv2d(3, 16, 3), nn.Linear(16, 10)

    def forward(self, x):
        hidden = torch.relu(self.first(x)).mean((2, 3))
        logits = self.last(hidden)
        answers = {"pair": (logits, hidden), "named": {"hidden": [hidden], "logits": logits}}
        return {**answers, "said": Said(hidden, logits), "none": (hidden, 3)}[self.kind]

def pair(): return Many("pair")
def named(): return Many("named")
def said(): return Many("said")
def none(): return Many("none")
"""


@pytest.fixture
def answering(tmp_path):
    def made(kind: str) -> Pruned:
        from safetensors.torch import save_file

        (tmp_path / "answering_models.py").write_text(ANSWERING)
        torch.manual_seed(0)
        first, last = nn.Conv2d(3, 16, 3), nn.Linear(16, 10)
        state = {f"first.{k}": v for k, v in first.state_dict().items()}
        state |= {f"last.{k}": v for k, v in last.state_dict().items()}
        save_file(state, tmp_path / "answering.safetensors")
        chosen = {"model": f"answering_models.py:{kind}", "weights": "answering.safetensors"}
        return Pruned.model_validate(chosen, context={"folder": tmp_path})

    return made


@pytest.mark.parametrize("kind", ["pair", "named", "said"])
def test_the_logits_are_found_in_a_tuple_a_mapping_or_a_dataclass(answering, spec, batch, kind):
    family = answering(kind)
    student = family.build(largest(family, spec, keep_30=0.5), spec)
    with torch.no_grad():
        assert student(batch).shape == (4, 10)
    assert student.first.out_channels == 8


def test_an_answer_without_the_logits_is_refused(answering, spec):
    with pytest.raises(ConfigurationError, match="16 classes, and task `images` has 10"):
        answering("none").space(spec)


def test_blocks_can_be_left_alone(make, spec):
    assert not any(axis.name.startswith("blocks") for axis in make("resnet20", blocks=False).space(spec).axes)


def test_heads_that_the_model_has_not_are_refused(make, spec):
    many = spec.but(more=(HeadSpec(name="mask", kind="segmentation", classes=2),))
    with pytest.raises(ConfigurationError, match="where `logits`, `mask` were expected"):
        make("resnet20").space(many)


def test_other_classes_and_other_images_are_refused(make, spec):
    family = make("resnet20")
    with pytest.raises(ConfigurationError, match="10 classes, and task `images` has 5"):
        family.space(spec.but(head=HeadSpec(classes=5)))
    with pytest.raises(ConfigurationError, match=r"\(1, 32, 32\)"):
        family.space(spec.but(input=InputSpec(shape=(1, 32, 32))))


def test_what_is_left_out_is_reported(make, spec):
    assert [layer for layer, _ in make("resnet20").left_out(spec)] == ["conv1", "linear"]


def test_another_process_builds_the_same(make, spec, tmp_path):
    family = make("resnet20")
    arch = family.space(spec).at(5)
    script = tmp_path / "again.py"
    script.write_text(
        "import json, sys\nfrom edgekd.compress.pruning.family import Pruned\n"
        "from edgekd.ir.space import Arch\nfrom edgekd.tasks._protocol import TaskSpec\n"
        "from safetensors.torch import save_file\n"
        "family, arch, spec = (json.loads(text) for text in sys.argv[1:4])\n"
        "module = Pruned.model_validate(family).build(Arch.of(arch), TaskSpec.model_validate(spec))\n"
        "save_file(module.state_dict(), sys.argv[4])\n"
    )
    saved = tmp_path / "again.safetensors"
    texts = [family.model_dump_json(), arch.model_dump_json(), spec.model_dump_json()]
    subprocess.run([sys.executable, str(script), *texts, str(saved)], check=True, cwd=tmp_path, timeout=120)
    from safetensors.torch import load_file

    again, here = load_file(saved), family.build(arch, spec).state_dict()
    assert list(here.keys() ^ again.keys()) == []
    assert all(torch.equal(here[name], again[name]) for name in here)


@pytest.mark.skipif("EDGEKD_DATA" not in os.environ, reason="EDGEKD_DATA names no folder with the CIFAR networks")
def test_a_trained_network_keeps_most_of_what_it_knows():
    from edgekd.tasks.images.classification import ImageClassification

    data = Path(os.environ["EDGEKD_DATA"])
    task = ImageClassification.model_validate(
        {"data": data / "cifar10-tiny.npz", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    )
    family = Pruned.model_validate(
        {"model": f"{EXAMPLES}/cifar_resnet.py:resnet20", "weights": data / "cifar-resnets" / "resnet20.npz"}
    )
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (task.spec.input.mean, task.spec.input.std))
    seen = task.split("validation")
    batch = (torch.from_numpy(seen.inputs).float() - mean) / std
    student = family.build(largest(family, task.spec, keep_32=0.5), task.spec)
    with torch.no_grad():
        assert task.score(student(batch).numpy(), seen.labels).value > 0.8


def test_other_weights_are_another_family(make, tmp_path):
    first = make("vgg")
    digest = first.digest()
    weights = dict(np.load(tmp_path / "vgg.npz"))
    np.savez(tmp_path / "vgg.npz", **{name: value + 1 for name, value in weights.items()})
    assert first.digest() != digest
    assert make("vgg").digest() == digest


def shaped(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet20", "mobile"])
def test_shrinking_the_whole_is_building_the_part(make, spec, batch, name):
    family = make(name, ratios=[0.5, 1.0], round_to=4)
    space = family.space(spec)
    small = Arch.of({axis.name: axis.choices[0] for axis in space.axes})
    whole = largest(family, spec)
    shrunk = family.shrink(family.build(whole, spec), whole, small, spec)
    assert torch.equal(shrunk(batch), family.build(small, spec)(batch))


@pytest.mark.parametrize("name", ["resnet20", "mobile", "vgg"])
def test_what_was_learned_is_taken_along_step_by_step(make, spec, batch, name):
    family = make(name, ratios=[0.25, 0.5, 1.0], round_to=4)
    arch = largest(family, spec)
    module = family.build(arch, spec)
    axes = family.space(spec).axes
    for axis in [*axes, *axes]:
        smaller = [choice for choice in axis.choices if choice < arch[axis.name]]
        if not smaller:
            continue
        with torch.no_grad():  # as if it had been trained in between
            for parameter in module.parameters():
                parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
        before, given = {k: v.clone() for k, v in module.state_dict().items()}, module
        step = Arch.of({**dict(arch.choices), axis.name: smaller[-1]})
        module = family.shrink(module, arch, step, spec)
        assert shaped(module) == shaped(family.build(step, spec)), step
        assert all(torch.equal(given.state_dict()[k], v) for k, v in before.items())
        last = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)][-1]
        assert torch.equal(module.get_submodule(last).bias, given.get_submodule(last).bias)
        arch = step
    assert module(batch).shape == (4, 10)
    assert not module.training


def test_channels_that_training_has_made_large_are_kept(make, spec):
    family = make("vgg", round_to=4)
    whole = largest(family, spec)
    module = family.build(whole, spec)
    least = int(module[5].weight.square().sum(1).argmin())
    with torch.no_grad():
        module[5].weight[least] *= 100
    shrunk = family.shrink(module, whole, largest(family, spec, keep_1=0.5), spec)
    assert float(shrunk[5].weight.detach().abs().max()) == float(module[5].weight[least].detach().abs().max())


def test_nothing_shrinks_into_something_larger(make, spec):
    family = make("vgg", ratios=[0.5, 1.0])
    small, whole = largest(family, spec, keep_1=0.5), largest(family, spec)
    with pytest.raises(ValueError, match="keep_1 grows"):
        family.shrink(family.build(small, spec), small, whole, spec)


@pytest.mark.parametrize("name", ["resnet20", "mobile", "vgg"])
def test_features_of_every_arch_follow_from_a_few_traces(make, spec, name, monkeypatch):
    """Building and tracing each took a large network past a search's whole budget."""
    family = make(name, ratios=[0.25, 0.5, 1.0], round_to=4)
    space = family.space(spec)
    archs = [space.at(index) for index in space.indices(12, seed=1)]
    students = [new_student(family, arch, spec, 0) for arch in archs]
    expected = [(analyse(student, Precision.INT8), kernels_of(student)) for student in students]
    built = []
    plain = Pruned.build
    monkeypatch.setattr(Pruned, "build", lambda self, arch, spec: built.append(arch) or plain(self, arch, spec))
    found = [(analyse_arch(family, a, spec, Precision.INT8), kernels_of_arch(family, a, spec)) for a in archs]
    assert found == expected
    assert len(built) == 2, "of which it is checked that they follow"


def test_an_arch_that_does_not_follow_is_counted_itself(make, spec, monkeypatch):
    family = make("mobile", ratios=[0.5, 1.0], round_to=4)
    arch = family.space(spec).at(3)
    plain = Pruned.cut
    wrong = lambda self, arch, spec: replace(plain(self, arch, spec), removed={})  # noqa: E731
    monkeypatch.setattr(Pruned, "cut", wrong)
    assert analyse_arch(family, arch, spec, Precision.FLOAT32) == analyse(
        new_student(family, arch, spec, 0), Precision.FLOAT32
    )


LOADING = """
import torch
from torch import nn

def build():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(1),
                          nn.Linear(16 * 28 * 28, 10))
    {load}
    return model
"""


def loading(folder: Path, load: str, **options) -> Pruned:
    (folder / "loading_model.py").write_text(LOADING.format(load=load))
    sys.modules.pop("loading_model", None)
    return Pruned.model_validate({"model": "loading_model.py:build", **options}, context={"folder": folder})


@pytest.mark.parametrize("kind", [Pruned, Own])
def test_a_function_may_load_the_weights_itself_and_they_are_part_of_the_identity(kind, tmp_path, spec):
    untrained = loading(tmp_path, "pass").model.resolve()
    pruned = loading(tmp_path, "model.load_state_dict(torch.load(__file__.replace('loading_model.py', 'inside.pt')))")
    family = kind.model_validate({"model": pruned.model})
    digests = []
    for weights in (untrained().state_dict(), untrained().state_dict()):
        torch.save(weights, tmp_path / "inside.pt")
        forget_models()
        built = family.build(family.original(spec), spec).state_dict()
        assert all(torch.equal(built[name], value) for name, value in weights.items())
        digests.append(family.digest())
        forget_models()
        assert family.digest() == digests[-1]
    assert len(set(digests)) == 2


@pytest.mark.parametrize("seeding", ["pass", "torch.manual_seed(0)"])
def test_weights_drawn_at_random_are_not_pruned(seeding, tmp_path, spec):
    family = loading(tmp_path, "pass")
    source = tmp_path / "loading_model.py"
    source.write_text(source.read_text().replace("    model =", f"    {seeding}\n    model ="))
    with pytest.raises(ConfigurationError, match=r"`loading_model:build\(\)` returns other weights at each call"):
        family.space(spec)
    assert family.digest() == family.digest()
