"""Contract of a Family of students:

- its space is finite, and the same each time it is asked for; each axis has a name of its own, and its numbers ascend;
- every arch of a sample of it builds: eval mode, finite float32 logits (N, classes), parameters that can be trained;
- where a task has several heads, those it can build answer with raw answers by name (`edgekd.students.heads`);
- building does not change what was built before, and one arch has one structure: names, shapes and order of weights
  are the same whatever the random seed, so that saved weights always fit;
- with one seed, the same weights too; a family that inherits gives them with any seed;
- the largest arch has at least the parameters of the smallest.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgekd.ir.space import Arch
from edgekd.students._protocol import Family
from edgekd.students.heads.many import raw_names
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

__all__ = ["FamilyContract"]

_SAMPLE = 6


class FamilyContract:
    """Subclass it, override ``make_family`` (and ``spec`` where it needs other images): pytest does the rest."""

    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        """A function that makes the same family each time it is called."""
        raise NotImplementedError("override the fixture `make_family`")

    @pytest.fixture
    def spec(self) -> TaskSpec:
        """The task it builds students for."""
        return TaskSpec(name="contract", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=10), data="0" * 64)

    @pytest.fixture
    def family(self, make_family: Callable[[], Family]) -> Family:
        """A family of the factory."""
        return make_family()

    @pytest.fixture
    def archs(self, family: Family, spec: TaskSpec) -> list[Arch]:
        """The smallest, the largest, and some between."""
        space = family.space(spec)
        return [space.at(index) for index in space.indices(_SAMPLE, seed=0)]

    def test_space_is_finite_and_steady(self, make_family: Callable[[], Family], spec: TaskSpec) -> None:
        space = make_family().space(spec)
        assert space.size >= 1
        assert space == make_family().space(spec)
        names = [axis.name for axis in space.axes]
        assert len(set(names)) == len(names)
        for axis in space.axes:
            assert len(set(axis.choices)) == len(axis.choices), f"{axis.name} has a choice twice"
            if not axis.categorical:
                assert list(axis.choices) == sorted(axis.choices), f"{axis.name} is not ascending"
        sampled = [space.at(index) for index in space.indices(_SAMPLE, seed=0)]
        assert [space.index(arch) for arch in sampled] == space.indices(_SAMPLE, seed=0)
        assert space.at(space.size - 1) in space

    def test_archs_build_and_answer(self, family: Family, spec: TaskSpec, archs: list[Arch]) -> None:
        batch = torch.from_numpy(spec.input.random(0, 3))
        for arch in archs:
            module = family.build(arch, spec)
            assert not any(part.training for part in module.modules()), f"{arch} is in training mode"
            with torch.no_grad():
                answers = module(batch)
            if spec.plain:
                assert answers.shape == (3, spec.head.classes), str(arch)
            else:
                names = [name for head in spec.heads for name in raw_names(head)]
                assert list(answers) == names, str(arch)
            for answer in pytree.tree_leaves(answers):
                assert len(answer) == 3, str(arch)
                assert answer.dtype == torch.float32
                assert torch.isfinite(answer).all(), str(arch)

    def test_students_can_be_trained(self, family: Family, spec: TaskSpec, archs: list[Arch]) -> None:
        module = family.build(archs[0], spec).train()
        batch = torch.from_numpy(spec.input.random(0, 4))
        value = torch.stack([answer.square().mean() for answer in pytree.tree_leaves(module(batch))]).sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        idle = [name for name, parameter in module.named_parameters() if parameter.grad is None]
        assert not idle, f"no gradient reaches {idle}"

    def test_structure_does_not_depend_on_the_seed(self, family: Family, spec: TaskSpec, archs: list[Arch]) -> None:
        for arch in archs[:3]:
            one, two = _seeded(family, arch, spec, 1), _seeded(family, arch, spec, 2)
            assert _structure(one) == _structure(two)

    def test_weights_depend_on_the_seed_alone(
        self, make_family: Callable[[], Family], spec: TaskSpec, archs: list[Arch]
    ) -> None:
        one = _seeded(make_family(), archs[0], spec, 1)
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(1.0)  # what is done to one student must not be seen in the next
        again = _seeded(make_family(), archs[0], spec, 1)
        seed = 2 if make_family().inherits else 1
        other = _seeded(make_family(), archs[0], spec, seed)
        for name, value in again.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))

    def test_the_largest_is_not_smaller(self, family: Family, spec: TaskSpec) -> None:
        space = family.space(spec)
        smallest, largest = (_parameters(family.build(space.at(at), spec)) for at in (0, space.size - 1))
        assert smallest <= largest
        if space.size > 1:
            assert smallest < largest


def _seeded(family: Family, arch: Arch, spec: TaskSpec, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.build(arch, spec)


def _structure(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in module.state_dict().items()]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
