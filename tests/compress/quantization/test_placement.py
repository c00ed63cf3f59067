"""Which operators compute in float: those without an integer form, those asked for, and what stands between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.compress.quantization.placement import float_operators, unmatched
from edgekd.compress.quantization.rules import points_of
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.graph import trace
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 8, 8)), head=HeadSpec(classes=4), data="0" * 64)


def placed(module: nn.Module, *keep: str) -> tuple[dict[str, str], set[str]]:
    """Operators in float with their reasons, and the keys of encoded tensors."""
    student = Student(module=module.eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))
    traced = trace(student, decomposed=False)
    floats = float_operators(traced, keep)
    return dict(floats), set(points_of(traced, floats.keys()).group)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        x = torch.relu(x + self.two(x))
        return self.fc(self.three(x).mean((2, 3)))


class Block(nn.Module):
    """A pre-norm transformer block over the pixels, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.position = nn.Parameter(torch.zeros(1, 16, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm2, self.up, self.down, self.act = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8), nn.GELU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)
        x = x + self.down(self.act(self.up(self.norm2(x))))
        return self.head(x.mean(1))


def test_nothing_is_float_in_a_network_of_integer_operators() -> None:
    floats, encoded = placed(Residual())
    assert floats == {}
    assert "input" in encoded


def test_an_activation_without_an_integer_form_is_an_island_alone() -> None:
    floats, encoded = placed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 4)))
    assert list(floats) == ["1:silu"]
    assert "has no integer form" in floats["1:silu"]
    assert encoded == {"input", "0:conv", "1:silu", "2:flatten", "3:linear"}


def test_a_relu_behind_an_island_joins_it_and_a_view_between_islands_has_no_encoding() -> None:
    parts = nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.ReLU(), nn.Flatten(2), nn.Softmax(-1), nn.Flatten(), nn.Linear(144, 4)
    floats, encoded = placed(nn.Sequential(*parts))
    assert list(floats) == ["1:sigmoid", "2:relu", "4:softmax"]
    assert floats["2:relu"] == "follows operators in float"
    assert encoded == {"input", "0:conv", "4:softmax", "5:flatten", "6:linear"}


def test_the_residual_stream_of_a_transformer_is_float_and_its_linear_layers_are_not() -> None:
    floats, encoded = placed(Block())
    kinds = [key.partition(":")[2].partition(".")[0] for key in floats]
    assert sorted(kinds) == sorted(["add", "layer_norm", "matmul", "softmax", "matmul", "add", "layer_norm", "gelu"])
    assert floats[":add.1"] == "stands between operators in float"
    assert {key for key in encoded if key.endswith(":linear")} == {
        "qkv:linear", "out:linear", "up:linear", "down:linear", "head:linear"
    }  # fmt: skip
    assert ":add" not in encoded
    assert ":add.2" in encoded  # the mean reads it
    assert "norm:layer_norm" in encoded


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("two", {"two:conv"}),
        ("two:conv", {"two:conv"}),
        ("t*:conv", {"two:conv", "three:conv", ":mean"}),
        ("one", {"one:conv", ":relu"}),
    ],
)
def test_what_the_recipe_keeps_in_float(pattern: str, expected: set[str]) -> None:
    floats, _ = placed(Residual(), pattern)
    assert set(floats) == expected


def test_a_sum_beside_a_float_layer_stays_an_integer_one() -> None:
    floats, encoded = placed(Residual(), "two")
    assert ":add" not in floats
    assert "two:conv" in encoded


def test_a_weight_that_two_operators_share_is_float_or_integer_for_both() -> None:
    class Twice(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.one(self.one(x)).mean((2, 3)))

    floats, _ = placed(Twice(), "one:conv")
    assert floats["one:conv.1"] == "shares its weight with an operator in float"


def test_a_pattern_that_matches_nothing_in_any_arch_is_a_problem() -> None:
    one, other = (
        trace(Student(module=module.eval(), task=SPEC, family="mine", options={}, arch=Arch.of({})), decomposed=False)
        for module in (Residual(), Block())
    )
    (problem,) = unmatched([one, other], ["two", "qkv", "layer9"])
    assert "keep_float: `layer9` matches no operator" in problem.message
    assert "one:conv" in problem.remedy
    assert [problem.message.split("`")[1] for problem in unmatched([one], ["two", "qkv"])] == ["qkv"]
