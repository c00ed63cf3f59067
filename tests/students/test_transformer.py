"""The family transformer: its space, its networks, what they cost, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from edgekd.errors import ConfigurationError
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Family
from edgekd.students.analysis import analyse_arch, kernels_of_arch
from edgekd.students.transformer import SelfAttention, Transformer
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec, TextSpec
from edgekd.testing.contracts.family import FamilyContract

SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
SMALL = {"space": {"width": [16, 32], "depth": [1, 2], "heads": [1, 2], "mlp_ratio": [1, 2], "patch": [4, 8]}}


class TestTransformer(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: Transformer.model_validate(SMALL)


class TestManyHeaded(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: Transformer.model_validate(SMALL)

    @pytest.fixture
    def spec(self) -> TaskSpec:
        heads = HeadSpec(name="scene", classes=3), HeadSpec(name="mask", kind="segmentation", classes=4)
        return TaskSpec(name="two", input=InputSpec(shape=(3, 32, 32)), head=heads[0], more=heads[1:], data="0" * 64)


TEXT = InputSpec(
    name="tokens", shape=(6,), raw_dtype="int32", raw_range=(0.0, 49.0),
    text=TextSpec(vocabulary=50, padding=3, tokenizer="0" * 64),
)  # fmt: skip


class TestText(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: Transformer.model_validate(SMALL)

    @pytest.fixture
    def spec(self) -> TaskSpec:
        return TaskSpec(name="texts", input=TEXT, head=HeadSpec(classes=3), data="0" * 64)


def test_texts_have_no_patches_and_padding_takes_no_part() -> None:
    family = Transformer.model_validate(SMALL)
    spec = TaskSpec(name="texts", input=TEXT, head=HeadSpec(classes=3), data="0" * 64)
    assert [axis.name for axis in family.space(spec).axes] == ["depth", "heads", "mlp_ratio", "width"]
    module = family.build(family.space(spec).at(0), spec)
    answer = module(torch.tensor([[7, 8, 3, 3, 3, 3]], dtype=torch.int32))
    with torch.no_grad():
        module.encoder.embed.table.weight[3] += 5.0  # the vector of padding
        module.encoder.positions[:, 2:] -= 2.0
    torch.testing.assert_close(module(torch.tensor([[7, 8, 3, 3, 3, 3]], dtype=torch.int32)), answer)
    assert torch.isfinite(module(torch.full((1, 6), 3, dtype=torch.int32))).all()


def one(**space: object) -> tuple[Transformer, Arch]:
    family = Transformer.model_validate({"space": space})
    return family, family.space(SPEC).at(0)


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    layer, tokens = SelfAttention(24, 3, 12), torch.randn(2, 5, 24)

    def heads(channels: torch.Tensor) -> torch.Tensor:
        return channels.reshape(2, 5, 3, 4).transpose(1, 2)

    wanted = functional.scaled_dot_product_attention(
        heads(layer.query(tokens)), heads(layer.key(tokens)), heads(layer.value(tokens))
    )
    torch.testing.assert_close(layer(tokens), layer.out(wanted.transpose(1, 2).reshape(2, 5, 12)))


def test_what_it_costs_is_counted_by_hand() -> None:
    family, arch = one(width=32, depth=1, heads=2, mlp_ratio=2, patch=[4], head_width=8)
    tokens, attended = 16, 16
    stem = 64 * 16 * 27 + 16 * 32 * 16 * 9 + 16 * 32 * 32
    linear = tokens * (3 * 32 * attended + attended * 32 + 2 * 32 * 64)
    products = 2 * tokens * tokens * attended
    found = analyse_arch(family, arch, SPEC, Precision.FLOAT32)
    assert found.macs == stem + linear + products + 32 * 10
    weights = 27 * 16 + 9 * 16 * 32 + 32 * 32 + 4 * 32 * 16 + 2 * 32 * 64 + 320
    others = (16 + 32 + 32) + 16 * 32 + (3 * 16 + 32 + 64 + 32) + 3 * 2 * 32 + 10  # biases, positions, norms, head
    assert found.parameters == weights + others


def test_products_of_matrices_are_rows_by_columns() -> None:
    family, arch = one(width=32, depth=1, heads=2, mlp_ratio=2, patch=[4], head_width=8)
    dense = [kernel for kernel in kernels_of_arch(family, arch, SPEC) if kernel.kind == "dense"]
    assert [(kernel.inputs, kernel.outputs, kernel.height) for kernel in dense] == [
        (32, 16, 16),
        (32, 16, 16),
        (32, 16, 16),
        (8, 16, 2 * 16),  # attention of two heads
        (16, 8, 2 * 16),
        (16, 32, 16),
        (32, 64, 16),
        (64, 32, 16),
        (32, 10, 1),
    ]


def test_options_decide_the_axes() -> None:
    family = Transformer.model_validate(SMALL)
    axes = {axis.name: axis.choices for axis in family.space(SPEC).axes}
    assert axes == {"depth": (1, 2), "heads": (1, 2), "mlp_ratio": (1, 2), "patch": (4, 8), "width": (16, 32)}
    assert Transformer.model_validate(family.model_dump(mode="json")) == family


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"patch": [3]}, "3 is no power of 2"),
        ({"depth": [1, 1000]}, "1000 blocks: 64 are the most"),
        ({"width": [64, 16]}, "starts above its end"),
        ({"tokens": 4}, "Extra inputs"),
    ],
)
def test_a_wrong_space_is_refused(space: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Transformer.model_validate({"space": space})


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="16 x 16 pixels can't be cut into patches of 32 x 32"):
        Transformer.model_validate({"space": {"patch": [32]}}).space(SPEC)
