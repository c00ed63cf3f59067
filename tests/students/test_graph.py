"""Keys outlive wrapping, decomposition and a dynamic batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.graph import execute, keys_of, parameters_of, trace
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="tiny", input=InputSpec(shape=(3, 8, 8)), head=HeadSpec(classes=4), data="0" * 64)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))  # a name wrappers use too
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.core(x))
        z = self.relu(self.conv(y))
        z += y
        return self.fc(z.mean((2, 3)))


class Wrapper(nn.Module):
    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.core((x.to(torch.float32) - 3) / 2)
        return answer


def student() -> Student:
    torch.manual_seed(0)
    return Student(module=Twice().eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))


EXPECTED = {
    "input",
    "core.0:conv",
    "relu:relu",
    "conv:conv",
    "relu:relu.1",
    ":add",
    ":mean",
    "fc:linear",
}


@pytest.mark.slow
@pytest.mark.parametrize("decomposed", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_keys_name_module_and_operator(dynamic: bool, decomposed: bool) -> None:
    traced = trace(student(), dynamic_batch=dynamic, decomposed=decomposed)
    assert set(traced.keys.values()) == EXPECTED
    assert {"core.0.weight", "conv.bias", "fc.weight"} <= set(traced.parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize("decomposed", [True, False])
def test_keys_are_the_same_inside_a_wrapper(decomposed: bool) -> None:
    whole = Wrapper(trace(student()).student.module).eval()
    program = torch.export.export(whole, (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),))
    program = program.run_decompositions({}) if decomposed else program
    keys = keys_of(program)
    assert {key for key in keys.values() if not key.startswith("preprocess:")} == EXPECTED
    assert {"preprocess:sub", "preprocess:div"} <= set(keys.values())
    assert set(parameters_of(program, whole).values()) == set(trace(student()).parameters.values())


@pytest.mark.slow
def test_executing_gives_the_modules_answer_and_shows_every_key() -> None:
    traced = trace(student(), dynamic_batch=True)
    x = torch.randn(3, 3, 8, 8)
    seen = []
    answer = execute(traced, x, lambda key, value: (seen.append(key), value)[1])
    torch.testing.assert_close(answer, student().module(x), atol=1e-5, rtol=1e-5)
    assert set(seen) == EXPECTED


def test_a_module_that_branches_on_values_is_refused_with_the_reason() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))

    with pytest.raises(ConfigurationError, match="graph") as caught:
        trace(student().but(module=Branching()))
    assert "without branches" in caught.value.problems[0].remedy


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x).mean((1, 2, 3))


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        return x.mean((2, 3)) + numbers


@pytest.mark.parametrize("module", [Tokens(), TwoInputs()], ids=["tokens", "two inputs"])
def test_the_error_for_a_module_of_other_inputs_says_what_is_taken(module: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match="graph") as caught:
        trace(student().but(module=module))
    assert caught.value.problems[0].remedy.startswith("one input of the task is given here")


@pytest.mark.slow
@pytest.mark.parametrize("flatten", [nn.Flatten(), nn.Flatten(1)])
def test_a_pool_to_one_pixel_and_its_flattening_are_one_mean(flatten: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), flatten, nn.Linear(4, 4)).eval()
    student = Student(module=module, task=SPEC, family="plain", options={}, arch=Arch(choices=()))
    traced = trace(student)
    assert "2:mean" in traced.keys.values()
    assert not [name for name in traced.keys.values() if "flatten" in name or "view" in name]
    x = torch.randn(1, 3, 8, 8)
    assert torch.allclose(traced.program.module()(x), module(x), atol=1e-6)


@pytest.mark.slow
def test_a_pool_that_is_the_answer_is_a_mean_too() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    student = Student(module=module, task=SPEC, family="plain", options={}, arch=Arch(choices=()))
    traced = trace(student)
    assert list(traced.keys.values())[-1] == "1:mean"
    x = torch.randn(1, 3, 8, 8)
    assert torch.allclose(traced.program.module()(x), module(x), atol=1e-6)


class Shuffled(nn.Module):
    """Channels in another order, as ShuffleNet has them, behind an operator in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(x, inplace=True)
        return x.view(-1, 1, 3, 8, 8).transpose(1, 2).reshape(-1, 3, 8, 8).mean((2, 3))


@pytest.mark.slow
def test_a_reshape_of_a_transposed_tensor_survives_a_second_export() -> None:
    """Decomposing makes a copy and a view of it, and the copy is left out."""
    traced = trace(student().but(module=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Shuffled())))
    assert traced.program.run_decompositions()


class Wasteful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x).mean((2, 3))


def test_what_no_answer_depends_on_is_left_out() -> None:
    assert set(trace(student().but(module=Wasteful())).keys.values()) == {"input", "used:conv", ":mean"}


class Token(nn.Module):
    """With a token for each image, as vision transformers are written."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        return self.fc(torch.cat([self.token.expand(len(rows), -1, -1), rows], 1).mean(1))


def test_a_fixed_number_of_images_is_named_as_the_cause() -> None:
    fixed = Student(module=Token().eval(), task=SPEC, family="own", options={}, arch=Arch.of({}))
    with pytest.raises(ConfigurationError, match=r"fixes the number of images\n.*images.shape\[0\] for len"):
        trace(fixed, dynamic_batch=True)
